"""A machine without file descriptors or memory: the bundle is not to blame, and opens later."""

import subprocess
import sys
from pathlib import Path

import pytest

from index.bundle.reader import open_bundle
from index.errors import is_machine_fault

ROOT = Path(__file__).parents[2]
OPEN_UNDER_LIMITS = """
import gc
import os
import resource
import sys
from pathlib import Path
from index.bundle.reader import open_bundle
from index.errors import UnavailableBundleError

def list_fds():
    return os.listdir("/proc/self/fd")

def measure_pages():
    return int(Path("/proc/self/statm").read_text().split()[0])

LIMITS = {
    "files": (resource.RLIMIT_NOFILE, lambda step: len(list_fds()) - 1 + step),
    "memory": (resource.RLIMIT_AS, lambda step: (measure_pages() + step) * resource.getpagesize()),
}
folder, (limit, value_at) = Path(sys.argv[1]), LIMITS[sys.argv[2]]
open_bundle(folder)  # whatever is loaded only once
before = resource.getrlimit(limit)
for step in range(1_000):
    gc.collect()
    resource.setrlimit(limit, (value_at(step), before[1]))
    try:
        open_bundle(folder)
        break
    except UnavailableBundleError:
        continue
    finally:
        resource.setrlimit(limit, before)
print("unavailable", step, "times, then open")
"""


@pytest.mark.parametrize("limit", ["files", "memory"])
def test_open_bundle_without_resources_is_unavailable(bundle_copy, limit):
    command = [sys.executable, "-c", OPEN_UNDER_LIMITS, str(bundle_copy), limit]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[1]) > 5  # it failed at several files
    assert open_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("error", "is_of_machine"),
    [
        (OSError(24, "Too many open files"), True),
        (PermissionError(13, "Permission denied"), True),
        (OSError("stale file handle"), True),
        (MemoryError(), True),
        (RuntimeError("could not mmap(): Cannot allocate memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (FileNotFoundError(2, "No such file or directory"), False),
        (IsADirectoryError(21, "Is a directory"), False),
        (RuntimeError("Index type 0x61626364 not recognized"), False),
        (ValueError("cannot reshape"), False),
    ],
)
def test_is_machine_fault_separates_causes(error, is_of_machine):
    assert is_machine_fault(error) == is_of_machine
