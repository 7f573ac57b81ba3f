"""Project 6: the training loop that survives contact."""
