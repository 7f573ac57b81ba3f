"""Threads that wait for work sleep, so that a busy laptop is not many times slower.

By default OpenMP's threads, and with them PyTorch's, wait for each other by spinning: on a core
that another program wants, the one that all wait for does not get its turn. The runtimes read these
variables when they are loaded, so this is imported before NumPy and PyTorch; child processes and
torchrun's workers inherit them. What is set already stays as it is.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # GNU's and LLVM's runtime
os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's and LLVM's, in milliseconds
