"""Many updates into one model: pure arithmetic, one file for each idea."""
