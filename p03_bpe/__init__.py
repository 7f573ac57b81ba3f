"""Project 3: byte-level byte-pair encoding."""
