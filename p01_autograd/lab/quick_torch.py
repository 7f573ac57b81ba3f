"""Import PyTorch without garbage collection, which takes a seventh less time.

It makes half a million objects that stay: Python looks through them again and again meanwhile, and
later at every full collection. So it waits, and gc.freeze exempts them from then on.
"""

import gc
import sys

import p01_autograd.lab.startup  # noqa: F401  isort: skip

if "torch" not in sys.modules:  # else gc.freeze would exempt what a notebook has made since
    collected = gc.isenabled()
    gc.disable()
    try:
        import torch  # noqa: F401
    finally:
        if collected:
            gc.enable()
    gc.freeze()
