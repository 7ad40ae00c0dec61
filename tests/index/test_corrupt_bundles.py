"""Randomly corrupted bundles are rejected or return the same results."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.support.corrupt_bundles import write_bundle_pair

BATCH = 500
DEADLINE_S = 600  # per batch: detects hangs, tolerates slow machines


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    write_bundle_pair(folder)
    return folder


def outcomes(bundles, first, count, kind="plain"):
    """Open these cases in a separate process; a crash names its case."""
    command = [sys.executable, "-m", "tests.support.corrupt_bundles"]
    done = subprocess.run(
        [*command, str(bundles), str(first), str(count), kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"after {lines[-1:]}: {done.stderr[-2_000:]}"
    cases = [line for line in lines if "outcome" in line]
    assert len(cases) == count
    return cases


def check(cases):
    for case in cases:
        assert case["outside"] == [], case
        # with new digests, other content counts as published
        allowed = {"rejected", "same", "other"} if case["has_new_digests"] else {"rejected", "same"}
        assert case["outcome"] in allowed, case
    assert {case["outcome"] for case in cases} >= {"rejected", "same"}


def test_corrupt_bundle_is_rejected_or_harmless(bundles):
    check(outcomes(bundles, 0, 300))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 10_000, BATCH))
def test_10000_corrupt_bundles_are_rejected_or_harmless(bundles, first):
    check(outcomes(bundles, first, BATCH))
