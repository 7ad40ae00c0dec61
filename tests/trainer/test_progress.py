"""Progress bars: a bar on a terminal, plain lines elsewhere."""

import os
import subprocess
import sys
import termios

from tests.conftest import ROOT

CODE = """
from trainer.progress import progress_bar
with progress_bar(desc="epoch 1", total=500, unit=" examples", unit_scale=True) as bar:
    bar.set_postfix(loss="0.5", refresh=False)
    bar.update(400)
    bar.update(100)
"""


def stderr_of(stderr):
    command = [sys.executable, "-c", CODE]
    return subprocess.run(command, cwd=ROOT, stderr=stderr, check=True).stderr


def test_progress_without_terminal_prints_plain_lines():
    (line,) = stderr_of(subprocess.PIPE).decode().splitlines()
    assert line.startswith("epoch 1: 100%")
    assert "examples/s" in line
    assert "loss=0.5" in line
    assert line.isprintable()


def test_progress_on_terminal_is_a_bar():
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    stderr_of(theirs)
    os.close(theirs)
    output = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "\r" in output
    assert "examples/s" in output
