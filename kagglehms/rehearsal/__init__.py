"""A built kernel run here as Kaggle would run it: its folders, its isolation, its hidden test set."""
