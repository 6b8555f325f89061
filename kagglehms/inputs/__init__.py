"""What a network is given: an image of tiles, folded signals, spectra, or the signals themselves."""
