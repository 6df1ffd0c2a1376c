"""Many simulated phones in one process: each its own connection, data and device."""
