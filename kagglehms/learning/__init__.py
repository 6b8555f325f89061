"""From stored recordings and labelled records to weights and honest scores."""
