"""Recordings, spectrograms and votes of a simulated competition, fitted to the real one."""
