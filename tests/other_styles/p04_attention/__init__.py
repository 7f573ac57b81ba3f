"""Correct listings of p04_attention in other styles, and their mutants."""
