"""Cluster maps in a folder: what else lies there, and what befalls it."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from index.__main__ import main
from index.cluster_map_registry import LOCAL_REMEDIES
from index.errors import (
    NoClusterMapError,
    ReadOnlyStoreError,
    StoreFullError,
    StoreUnreachableError,
)
from index.storage.local import storage_error
from index.storage.watcher import status_of
from tests.conftest import ROOT
from tests.support.cluster_maps import local_maps, numbered

A, B = (numbered(number) for number in range(2))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "clusters"


def test_what_a_killed_writer_left_is_swept_and_nothing_else(folder):
    store = local_maps(folder)
    store.publish(A)
    left = [f".{A.version}.4711", f".{B.version}.1", ".current.4711"]
    theirs = [".git", ".snapshot", ".staged-by-hand", ".nfs0001", ".current.swp", "notes"]
    for name in theirs[:3]:
        (folder / name / "deep").mkdir(parents=True)
    for name in (*left, *theirs[3:]):
        (folder / name).write_text("something")
    store.publish(B)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*theirs, ".lock", "current", A.version, B.version]
    )


def refused(number):
    return OSError(number, os.strerror(number), "/maps/.lock")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        *((one, ReadOnlyStoreError) for one in (errno.EROFS, errno.EACCES, errno.EPERM)),
        *((one, StoreFullError) for one in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
        (errno.EIO, StoreUnreachableError),
    ],
)
def test_a_folder_that_cannot_be_written_is_told_by_its_cause(number, kind):
    fault = storage_error("/maps", refused(number), LOCAL_REMEDIES, is_writing=True)
    assert type(fault) is kind
    assert f"/maps: {os.strerror(number)} (/maps/.lock); expected " in str(fault)
    fault = storage_error("/maps", refused(number), LOCAL_REMEDIES, is_writing=False)
    assert type(fault) is StoreUnreachableError


def test_a_folder_that_may_not_be_written_names_the_command_to_run_elsewhere():
    fault = storage_error("/maps", refused(errno.EROFS), LOCAL_REMEDIES, is_writing=True)
    assert "run `python -m index clusters pin | unpin | rollback" in str(fault)
    assert "where the folder may be written" in str(fault)
    assert status_of(fault) == "empty"  # met where a lost map cannot be put back


BOUND = """
import os, sys
from pathlib import Path
from index.errors import ReadOnlyStoreError
from tests.support.cluster_maps import local_maps
from tests.support.cluster_maps import numbered

store = local_maps(Path(sys.argv[1]))
version = store.pointer().version
store.read(version)  # what is imported late may be root's alone
if os.geteuid() == 0:  # who may write anywhere
    os.setresuid(65534, 65534, 65534)
assert store.read(version).version == version
calls = {"publish": lambda: store.publish(numbered(1)), "pin": store.pin}
calls |= {"unpin": store.unpin, "roll_back": store.roll_back, "prune": lambda: store.prune(0)}
for name, call in calls.items():
    try:
        call()
    except ReadOnlyStoreError:
        print(name)
"""


def test_who_may_only_read_a_folder_reads_it_and_is_told_so_on_writing():
    with tempfile.TemporaryDirectory(prefix="maps-") as above:  # pytest's own are private
        folder = Path(above) / "clusters"
        local_maps(folder).publish(A)
        for path, mode in ((folder / ".lock", 0o444), (folder, 0o555), (Path(above), 0o755)):
            path.chmod(mode)
        command = [sys.executable, "-c", BOUND, str(folder)]
        asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        folder.chmod(0o755)
    assert asked.stderr == ""
    assert asked.stdout.split() == ["publish", "pin", "unpin", "roll_back", "prune"]


def test_a_folder_that_is_misspelt_is_not_made_by_looking_or_tending(tmp_path):
    bundles = tmp_path / "misspelt"
    for words in (["list"], ["pin"], ["unpin"], ["rollback"], ["pin", A.version]):
        assert main(["clusters", *words, "--bundles", str(bundles)]) == 1
    assert main(["clusters", "prune", "--bundles", str(bundles)]) == 0
    with pytest.raises(NoClusterMapError, match="holds none"):
        local_maps(bundles).roll_back(A.version)
    assert list(tmp_path.iterdir()) == []
