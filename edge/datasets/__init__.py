"""The data edges learn from when they bring none of their own, and the ways to spread it over many edges."""
