"""Many updates into one though some of them are hostile: one file for each rule, and what the rules share."""
