"""A bundle's format and its proof, and the predictions of the models in it."""
