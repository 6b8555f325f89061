"""One fold: from stored recordings and labelled records to weights and honest held-out predictions."""
