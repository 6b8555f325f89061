"""People's own recordings: files and objects of any kind → windows, probabilities, events."""
