"""Puts one-line bugs into a copy of the code, one at a time: do the tests catch each of them?

    python -m tests.run_mutants            # all of tests/mutants.toml, about ten minutes
    python -m tests.run_mutants loss pin   # those whose file, line or reason contains a word

The named tests must pass without a bug, and fail by an assertion with it. Prints a table; the
exit status is 1 if a bug survives, or a mutant cannot be applied.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".demo", "build", "*cache*", "__pycache__", "*.egg-info", ".hypothesis"
)
PASSED, FAILED = 0, 1  # of pytest
TIMEOUT_S = 300
SETTINGS = ("-x", "-q", "--no-header", "-p", "no:cacheprovider", "-m", "not slow and not gpu")


class Mutant(NamedTuple):
    """A bug: a part of one line, what takes its place, and the tests that must fail."""

    file: str
    old: str
    new: str
    tests: list[str]
    why: str


def main(words: list[str]) -> int:
    """Try the mutants that contain a word, or all; return the exit status."""
    text = (ROOT / "tests/mutants.toml").read_text(encoding="utf-8")
    mutants = [Mutant(**one) for one in tomllib.loads(text)["mutant"]]
    chosen = [one for one in mutants if not words or any(word in str(one) for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        tests = sorted({test for one in chosen for test in one.tests})
        status, failed = run_tests(copy, tests)
        if status != PASSED:
            say(f"the tests do not pass without a bug (exit status {status}): {failed}")
            return 1
        survivors = sum(not is_caught(copy, number, one) for number, one in enumerate(chosen, 1))
    say(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return 1 if survivors else 0


def is_caught(copy: Path, number: int, mutant: Mutant) -> bool:
    """Apply a mutant, run its tests, take it back; prints a line of the table."""
    path = copy / mutant.file
    source = path.read_text(encoding="utf-8") if path.is_file() else ""
    began, verdict, failed = time.monotonic(), "NOT APPLIED", ""
    if source.count(mutant.old) == 1:
        path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        status, failed = run_tests(copy, mutant.tests)
        path.write_text(source, encoding="utf-8")
        verdict = "SURVIVED" if status == PASSED else f"ERROR {status}"
        verdict = "caught" if failed else verdict
    seconds = time.monotonic() - began
    say(f"{number:2}  {verdict:11}  {seconds:5.1f} s  {mutant.file}: {mutant.why}")
    if failed:
        say(f"    {failed}")
    return verdict == "caught"


def run_tests(copy: Path, tests: list[str]) -> tuple[int, str]:
    """Return pytest's exit status, and the first test that failed: not one that broke down.

    A run that hangs counts as failed.
    """
    command = [sys.executable, "-m", "pytest", *SETTINGS, *tests]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # what a bug leaves is no cache
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return FAILED, f"no end within {TIMEOUT_S} s"
    found = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    return done.returncode, found[1] if found and done.returncode == FAILED else ""


def say(line: str) -> None:
    """Tell the person at the terminal at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
