"""From run folders to a bundle: one flat Kaggle dataset, and the kernels stamped with its digest."""
