"""From the competition's folder to validated, decoded, memory-mapped recordings and labelled records."""
