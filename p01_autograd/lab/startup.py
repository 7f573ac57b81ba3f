"""What is set before NumPy and PyTorch are loaded: waiting threads sleep, processes end soon.

By default OpenMP's threads, and with them PyTorch's, wait for each other by spinning for
milliseconds: on a core that another program wants, the one that all wait for does not get its turn.
Here they spin for some fifty microseconds, which is about what lies between two operations, and
then sleep; sleeping at once costs a quiet machine half as much again. NumPy's OpenBLAS has no such
setting: beside one busy program, a step of the GPT on NumPy took six times as long with two threads
and as long as before with one, which costs a quiet machine a tenth. So it gets one. The runtimes
read these variables when they are loaded, so this is imported before NumPy and PyTorch; child
processes and torchrun's workers inherit them. What is set already stays as it is.

PyTorch's half a million objects are all looked at once more when Python ends, in search of cycles
to collect, which takes most of a second. gc.freeze says that there is nothing to find.
"""

import atexit
import gc
import os
import platform
import sys

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # GNU's runtime; by default 300,000
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # Intel's and LLVM's, in milliseconds; 200
if sys.platform != "linux" or platform.machine() == "x86_64":  # PyTorch has another BLAS there
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
atexit.register(gc.freeze)
