"""Project 4: scaled dot-product and multi-head causal attention."""
