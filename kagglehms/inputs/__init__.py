"""Inputs of networks: images of tiles, folded signals, spectra, and the signals themselves."""
