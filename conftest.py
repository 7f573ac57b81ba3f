"""Loads the checker, p01_autograd/lab/checker.py, which says whether what you typed is right."""

import importlib
import os
import sys
import types
from pathlib import Path

# Without p01_autograd/__init__.py: what a reader typed into build.py may not import yet.
package = types.ModuleType("p01_autograd")
package.__path__ = [str(Path(__file__).parent / "p01_autograd")]
kept = sys.modules.pop("p01_autograd", None)
sys.modules["p01_autograd"] = package
importlib.import_module("p01_autograd.lab.startup")  # before PyTorch is
if "OMP_NUM_THREADS" not in os.environ:  # the tests' tensors are too small to be shared
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:  # as in scripts/study.py, too late for that
        sys.modules["torch"].set_num_threads(1)
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # none: all numbers in the tests are those of a CPU
importlib.import_module("p01_autograd.lab.checker")
del sys.modules["p01_autograd"]
if kept is not None:
    sys.modules["p01_autograd"] = kept

from p01_autograd.lab.checker import *  # noqa: E402, F403
