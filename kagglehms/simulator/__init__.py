"""Everything synthetic: recordings, spectrograms and votes of a competition that never was, fitted to the real one."""
