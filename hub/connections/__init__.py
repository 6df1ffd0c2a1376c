"""What carries: who is here, what they say, and what they are sent."""
