"""Every command ends quietly when its pipe is closed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRINTS_LITTLE = ["scripts/blank.py", "--help"]  # all of it is buffered until the end
PRINTS_MUCH = ["-c", "from p01_autograd.lab.cli import Parser; Parser().parse_args([])\n"]
PRINTS_MUCH[1] += "while True: print('much')"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pipe as POSIX has them")
@pytest.mark.parametrize("command", [PRINTS_LITTLE, PRINTS_MUCH], ids=["little", "much"])
def test_a_closed_pipe_gives_no_traceback(command):
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"},
        encoding="utf-8",
    )
    process.stdout.close()  # as `| head` does
    assert process.stderr.read() == ""
    process.wait(timeout=60)
    process.stderr.close()
