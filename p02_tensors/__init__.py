"""Project 2: a tiny PyTorch-shaped tensor library on NumPy buffers."""

import p01_autograd.lab.startup  # noqa: F401  isort: skip

from p02_tensors import functional, nn, optim
from p02_tensors.torch_like import (
    Tensor,
    arange,
    bool,
    broadcast_shapes,
    cat,
    float32,
    float64,
    full,
    int64,
    manual_seed,
    no_grad,
    ones,
    rand,
    randint,
    randn,
    stack,
    tensor,
    tril,
    triu,
    unbroadcast,
    where,
    zeros,
)

nn.functional = functional
long, float = int64, float32

__all__ = [
    "Tensor",
    "arange",
    "bool",
    "broadcast_shapes",
    "cat",
    "float",
    "float32",
    "float64",
    "full",
    "functional",
    "int64",
    "long",
    "manual_seed",
    "nn",
    "no_grad",
    "ones",
    "optim",
    "rand",
    "randint",
    "randn",
    "stack",
    "tensor",
    "tril",
    "triu",
    "unbroadcast",
    "where",
    "zeros",
]
