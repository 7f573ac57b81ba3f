"""Correct listings of p01_autograd in other styles, and their mutants."""
