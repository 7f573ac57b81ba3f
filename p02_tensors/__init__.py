"""Project 2: a tiny PyTorch-shaped tensor library on NumPy buffers."""
