"""What decides: pure rules that touch neither clock, network nor disk."""
