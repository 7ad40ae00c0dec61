"""Mutation tests: applies one-line bugs to a copy of the code and checks that tests fail.

    python -m tests.run_mutants            # all of tests/mutants.toml, about ten minutes
    python -m tests.run_mutants loss pin   # those whose file, line or reason contains a word

The listed tests must pass without the bug and fail by an assertion with it. Prints a table; the
exit status is 1 if a mutant survives or cannot be applied.
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
IGNORED = shutil.ignore_patterns(
    ".git", ".venv", ".demo", "build", "*cache*", "__pycache__", "*.egg-info", ".hypothesis"
)
PASSED, FAILED = 0, 1  # of pytest
TIMEOUT_S = 300
SETTINGS = ("-x", "-q", "--no-header", "-p", "no:cacheprovider", "-m", "not slow and not gpu")


class Mutant(NamedTuple):
    """A bug: part of one line, its replacement, and the tests that must fail."""

    file: str
    old: str
    new: str
    tests: list[str]
    why: str


def main(words: list[str]) -> int:
    """Run the mutants that contain a word, or all; return the exit status."""
    text = (ROOT / "tests/mutants.toml").read_text(encoding="utf-8")
    mutants = [Mutant(**values) for values in tomllib.loads(text)["mutant"]]
    chosen = [
        mutant for mutant in mutants if not words or any(word in str(mutant) for word in words)
    ]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=IGNORED)
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        status, failed = run_tests(copy, tests)
        if status != PASSED:
            write_line(f"the tests fail without a bug (exit status {status}): {failed}")
            return 1
        survivors = sum(not run_mutant(copy, *numbered) for numbered in enumerate(chosen, 1))
    write_line(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return 1 if survivors else 0


def run_mutant(copy: Path, number: int, mutant: Mutant) -> bool:
    """Apply a mutant, run its tests, revert it and print the result; True if caught."""
    path = copy / mutant.file
    source = path.read_text(encoding="utf-8") if path.is_file() else ""
    started_at, verdict, failed = time.monotonic(), "NOT APPLIED", ""
    if source.count(mutant.old) == 1:
        path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        status, failed = run_tests(copy, mutant.tests)
        path.write_text(source, encoding="utf-8")
        verdict = "SURVIVED" if status == PASSED else f"ERROR {status}"
        verdict = "caught" if failed else verdict
    seconds = time.monotonic() - started_at
    write_line(f"{number:2}  {verdict:11}  {seconds:5.1f} s  {mutant.file}: {mutant.why}")
    if failed:
        write_line(f"    {failed}")
    return verdict == "caught"


def run_tests(copy: Path, tests: list[str]) -> tuple[int, str]:
    """Return pytest's exit status and the first test that failed, not one with an error.

    A timeout counts as a failure.
    """
    command = [sys.executable, "-m", "pytest", *SETTINGS, *tests]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # no bytecode of mutants
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return FAILED, f"timeout after {TIMEOUT_S} s"
    match = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    return done.returncode, match[1] if match and done.returncode == FAILED else ""


def write_line(line: str) -> None:
    """Write a line to the terminal and flush."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
