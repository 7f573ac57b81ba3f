"""A NumPy that refuses to broadcast: proof that the library never relies on NumPy's broadcasting.

    python -m pytest -p p02_tensors.watch p02_tensors/test_build.py

runs the tests with every array of the library watched: an elementwise call that is given arrays of
two shapes raises `Broadcast`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest


class Broadcast(Exception):
    """An elementwise NumPy call was given two shapes."""


class Watched(np.ndarray):
    """An array that checks every elementwise call it takes part in, and so do its results."""

    ignore_scalars = False

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: tuple = (), **kwargs: Any
    ) -> Any:
        if method == "__call__" and ufunc.signature is None:  # matmul is not elementwise
            check(ufunc, *inputs, *out)
        if out:
            kwargs["out"] = tuple(plain(x) for x in out)
        return watch(getattr(ufunc, method)(*map(plain, inputs), **kwargs))

    def __array_function__(self, function: Callable, types: Any, args: Any, kwargs: Any) -> Any:
        if function in (np.where, np.clip):  # not copyto, which zeros_like calls
            check(function, *args)
        return watch(super().__array_function__(function, types, args, kwargs))


def check(function: Callable, *operands: object) -> None:
    """Raise Broadcast if the arrays among the operands have different shapes."""
    shapes = [np.shape(x) for x in operands if isinstance(x, np.ndarray | np.generic)]
    if Watched.ignore_scalars:
        shapes = [shape for shape in shapes if shape]
    if len(set(shapes)) > 1:
        raise Broadcast(f"np.{function.__name__} was given arrays of shapes {shapes}")


def plain(x: Any) -> Any:
    """The same array, no longer watched."""
    return x.view(np.ndarray) if isinstance(x, Watched) else x


def watch(x: Any) -> Any:
    """The same array, watched; or a tuple of them."""
    if isinstance(x, tuple):
        return tuple(map(watch, x))
    return x.view(Watched) if type(x) is np.ndarray else x


class WatchedNumPy:
    """NumPy, but the arrays that its functions return are watched."""

    def __init__(self, module: types.ModuleType):
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return stand_in(getattr(self.module, name))


def stand_in(value: Any) -> Any:
    """What a watched module sees in place of one of NumPy's modules or functions."""
    if isinstance(value, types.ModuleType):
        return WatchedNumPy(value)
    if isinstance(value, type | np.ufunc) or not callable(value):
        return value
    return functools.wraps(value)(lambda *args, **kwargs: watch(value(*args, **kwargs)))


@contextlib.contextmanager
def watched(*modules: types.ModuleType, ignore_scalars: bool = False) -> Iterator[None]:
    """Inside, whatever `modules` get from NumPy is watched."""
    kept = [
        (module, name, value)
        for module in modules
        for name, value in vars(module).items()
        if value is np or getattr(value, "__module__", "") == "numpy"
    ]
    before, Watched.ignore_scalars = Watched.ignore_scalars, ignore_scalars
    for module, name, value in kept:
        setattr(module, name, stand_in(value))
    try:
        yield
    finally:
        Watched.ignore_scalars = before
        for module, name, value in kept:
            setattr(module, name, value)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop():
    """With -p p02_tensors.watch: the whole library is watched while the tests run."""
    names = ("build", "torch_like", "functional", "nn", "optim")
    with watched(*(importlib.import_module(f"p02_tensors.{name}") for name in names)):
        return (yield)
