"""Ready-made apps: each is a whole learning task in one short file, to run as it is or to copy."""
