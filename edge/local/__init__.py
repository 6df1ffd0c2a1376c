"""What edges compute in a round: each algorithm's part on the edge, in a file of its own."""
