"""Cluster maps in a folder: foreign files, read-only and missing folders."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from index.__main__ import main
from index.cluster_map_stores import LOCAL_REMEDIES
from index.errors import (
    NoClusterMapError,
    ReadOnlyStoreError,
    StoreFullError,
    StoreUnreachableError,
)
from index.storage.local import storage_error
from index.storage.watcher import status_of
from tests.conftest import ROOT
from tests.support.cluster_maps import local_maps, numbered_map

A, B = (numbered_map(number) for number in range(2))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "clusters"


def test_publish_deletes_only_files_of_killed_writers(folder):
    store = local_maps(folder)
    store.publish(A)
    temporary = [f".{A.version}.4711", f".{B.version}.1", ".current.4711"]
    foreign = [".git", ".snapshot", ".staged-by-hand", ".nfs0001", ".current.swp", "notes"]
    for name in foreign[:3]:
        (folder / name / "deep").mkdir(parents=True)
    for name in (*temporary, *foreign[3:]):
        (folder / name).write_text("something")
    store.publish(B)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*foreign, ".lock", "current", A.version, B.version]
    )


def os_error(number):
    return OSError(number, os.strerror(number), "/maps/.lock")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        *((number, ReadOnlyStoreError) for number in (errno.EROFS, errno.EACCES, errno.EPERM)),
        *((number, StoreFullError) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
        (errno.EIO, StoreUnreachableError),
    ],
)
def test_storage_error_maps_errno_to_class(number, kind):
    error = storage_error("/maps", os_error(number), LOCAL_REMEDIES, is_writing=True)
    assert type(error) is kind
    assert f"/maps: {os.strerror(number)} (/maps/.lock); expected " in str(error)
    error = storage_error("/maps", os_error(number), LOCAL_REMEDIES, is_writing=False)
    assert type(error) is StoreUnreachableError


def test_storage_error_names_command_to_run():
    error = storage_error("/maps", os_error(errno.EROFS), LOCAL_REMEDIES, is_writing=True)
    assert "run `python -m index clusters pin | unpin | rollback" in str(error)
    assert "where the folder is writable" in str(error)
    assert status_of(error) == "empty"  # raised when a lost map cannot be restored


READ_ONLY_SCRIPT = """
import os, sys
from pathlib import Path
from index.errors import ReadOnlyStoreError
from tests.support.cluster_maps import local_maps
from tests.support.cluster_maps import numbered_map

store = local_maps(Path(sys.argv[1]))
version = store.pointer().version
store.load(version)  # late imports may be readable by root only
if os.geteuid() == 0:  # root ignores file modes
    os.setresuid(65534, 65534, 65534)
assert store.load(version).version == version
calls = {"publish": lambda: store.publish(numbered_map(1)), "pin": store.pin}
calls |= {"unpin": store.unpin, "roll_back": store.roll_back, "prune": lambda: store.prune(0)}
for name, call in calls.items():
    try:
        call()
    except ReadOnlyStoreError:
        print(name)
"""


def test_read_only_folder_can_be_read_but_not_written():
    with tempfile.TemporaryDirectory(prefix="maps-") as parent:  # tmp_path is private to its user
        folder = Path(parent) / "clusters"
        local_maps(folder).publish(A)
        for path, mode in ((folder / ".lock", 0o444), (folder, 0o555), (Path(parent), 0o755)):
            path.chmod(mode)
        command = [sys.executable, "-c", READ_ONLY_SCRIPT, str(folder)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        folder.chmod(0o755)
    assert result.stderr == ""
    assert result.stdout.split() == ["publish", "pin", "unpin", "roll_back", "prune"]


def test_commands_do_not_create_missing_folder(tmp_path):
    bundles = tmp_path / "missing"
    for words in (["list"], ["pin"], ["unpin"], ["rollback"], ["pin", A.version]):
        assert main(["clusters", *words, "--bundles", str(bundles)]) == 1
    assert main(["clusters", "prune", "--bundles", str(bundles)]) == 0
    with pytest.raises(NoClusterMapError, match="stored versions: none"):
        local_maps(bundles).roll_back(A.version)
    assert list(tmp_path.iterdir()) == []
