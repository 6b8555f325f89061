"""What runs inside a Kaggle kernel: preparing, training, and the scored run."""
