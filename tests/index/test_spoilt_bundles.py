"""Bundles spoilt at random are refused, or answer as before."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.support.corrupt_bundles import write_two

BATCH = 500
DEADLINE_S = 600  # of a batch: a hang is seen, a slow machine is not


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    write_two(folder)
    return folder


def outcomes(two, first, count, kind="plain"):
    """Open these cases in a process of their own; a crash of it names its case."""
    command = [sys.executable, "-m", "tests.support.corrupt_bundles"]
    done = subprocess.run(
        [*command, str(two), str(first), str(count), kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"after {lines[-1:]}: {done.stderr[-2_000:]}"
    told = [line for line in lines if "outcome" in line]
    assert len(told) == count
    return told


def check(told):
    for one in told:
        assert one["outside"] == [], one
        # where the digests were made anew, other content is what was published
        allowed = {"rejected", "same", "other"} if one["is_anew"] else {"rejected", "same"}
        assert one["outcome"] in allowed, one
    assert {one["outcome"] for one in told} >= {"rejected", "same"}


def test_a_spoilt_bundle_is_refused_or_harmless(two):
    check(outcomes(two, 0, 300))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 10_000, BATCH))
def test_ten_thousand_spoilt_bundles_are_refused_or_harmless(two, first):
    check(outcomes(two, first, BATCH))
