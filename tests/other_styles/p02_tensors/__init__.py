"""Correct listings of p02_tensors in other styles, and their mutants."""
