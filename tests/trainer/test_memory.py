"""Memory between the stages of a run."""

from pathlib import Path

import numpy as np
import pytest

from trainer.memory import release_freed_memory


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux reports it")
def test_release_freed_memory_returns_holes_of_the_heap():
    arrays = [np.ones(100_000, dtype=np.uint8) for _ in range(2_000)]  # 200 MB, below the threshold
    kept = arrays[-1]
    del arrays
    before = resident_bytes()
    release_freed_memory()
    assert before - resident_bytes() > 100e6
    assert kept.all()
