"""Cluster maps in a folder: what else lies there, and what befalls it."""

import pytest

from index.folder_clusters import FolderClusters
from tests.index.cluster_maps import numbered

A, B = (numbered(number) for number in range(2))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "clusters"


def test_what_a_killed_writer_left_is_swept_and_nothing_else(folder):
    store = FolderClusters(folder)
    store.publish(A)
    left = [f".staged-{A.version}", f".removed-{B.version}", ".current.4711"]
    theirs = [".git", ".snapshot", ".staged-by-hand", ".nfs0001", ".current.swp", "notes"]
    for name in (*left[:2], *theirs[:3]):
        (folder / name / "deep").mkdir(parents=True)
    for name in (left[2], *theirs[3:]):
        (folder / name).write_text("something")
    store.publish(B)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*theirs, ".lock", "current", A.version, B.version]
    )
