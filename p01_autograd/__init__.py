"""Project 1: a scalar autograd engine in pure Python."""
