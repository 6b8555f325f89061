"""The way to Kaggle: the bundle, the kernels' entry, and the rehearsal of a kernel before it is pushed."""
