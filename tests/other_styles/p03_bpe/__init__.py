"""Correct listings of p03_bpe in other styles, and their mutants."""
