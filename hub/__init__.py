"""The hub: asks edges to train, averages what they answer in time, and tells what happened."""
