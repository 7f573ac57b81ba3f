"""Correct listings of p06_training in other styles, and their mutants."""
