"""From a bundle and new recordings to vote probabilities and a submission."""
