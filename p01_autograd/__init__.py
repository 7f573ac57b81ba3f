"""Project 1: a scalar autograd engine, backprop in 50 lines of pure Python."""

from p01_autograd.build import Value, topological_order

__all__ = ["Value", "topological_order"]
