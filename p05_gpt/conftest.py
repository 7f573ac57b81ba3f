"""Starts what test_engine.py waits for with the first test, so that it is ready when it comes."""

import subprocess
import sys

import pytest

IN_ONE_PROCESS = """
import os
from p05_gpt import engine

both = (engine.torch_steps, engine.our_steps) if hasattr(os, "fork") else ()
for steps in both:
    if os.fork() == 0:  # each from the same state
        print(steps.__name__, engine.peak_growth(steps), flush=True)
        os._exit(0)
small = ("--n-embd", "32", "--n-head", "4", "--n-layer", "2", "--block-size", "16")
print(engine.profile(2, *small, rows=200), flush=True)
for _ in both:
    os.wait()
"""


@pytest.fixture(scope="session", autouse=True)
def measurements(request):
    """The process that measures a step's memory and profile; None if no test needs it."""
    if not any("measured" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    output = dict(stdout=subprocess.PIPE, text=True, encoding="utf-8")
    with subprocess.Popen([sys.executable, "-c", IN_ONE_PROCESS], **output) as process:
        yield process
