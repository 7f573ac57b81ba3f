"""Correct listings of p05_gpt in other styles, and their mutants."""
