"""The checker: tests in a project's test_build.py take the module under test as `build`."""

import importlib

import pytest


@pytest.fixture
def build(request):
    """The module under test: the build.py of the project that the test lives in."""
    return importlib.import_module(f"{request.path.parent.name}.build")
