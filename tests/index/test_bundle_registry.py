import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from index.bundle.manifest import write_manifest
from index.bundle.registry import BundleRegistry
from index.errors import InvalidBundleError, NoBundleError, UnknownVersionError
from tests.support.published_bundles import day
from tests.support.synthetic_bundle import NOW, publish_handmade, write_handmade

ROOT = Path(__file__).parents[2]
PUBLISH_FIVE = """
import sys
from datetime import timedelta
from pathlib import Path
from tests.support.synthetic_bundle import NOW, publish_handmade
for second in range(5):
    publish_handmade(Path(sys.argv[1]), now=NOW + timedelta(seconds=second), prefix=sys.argv[2])
"""


def publish_three(bundles):
    return [publish_handmade(bundles, now=NOW + timedelta(days=day)) for day in range(3)]


def test_registry_last_published_is_current(tmp_path):
    _, second, third = publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    assert registry.current().name == third
    assert registry.pointer().previous == second


def test_publish_does_not_make_current(tmp_path):
    registry = BundleRegistry(tmp_path)
    with registry.stage() as staged:
        (staged / "manifest.json").write_text("{}")
        version = registry.publish(staged, NOW)
    assert registry.versions() == [version]
    with pytest.raises(NoBundleError, match="no bundle is published here yet; publish one"):
        registry.current()


def test_stage_without_publish_removes_folder(tmp_path):
    registry = BundleRegistry(tmp_path)
    with pytest.raises(RuntimeError, match="mid-way"), registry.stage():
        raise RuntimeError("mid-way")
    assert list(tmp_path.iterdir()) == []


def test_publish_equal_bundles_use_following_seconds(tmp_path):
    versions = [publish_handmade(tmp_path) for _ in range(3)]
    times = [f"{NOW + timedelta(seconds=second):%Y%m%dT%H%M%SZ}" for second in range(3)]
    assert versions == [f"{time}-{versions[0][-4:]}" for time in times]
    registry = BundleRegistry(tmp_path)
    assert registry.versions() == versions
    assert registry.current().name == versions[-1]


def test_registry_ignores_incomplete_folder(tmp_path):
    version = publish_handmade(tmp_path)
    (tmp_path / "20270101T000000Z-abcd").mkdir()
    registry = BundleRegistry(tmp_path)
    assert registry.versions() == [version]
    with pytest.raises(NoBundleError, match="holds no bundle '20270101T000000Z-abcd'"):
        registry.make_current("20270101T000000Z-abcd")


def test_roll_back_twice_goes_further_back(tmp_path):
    first, second, third = publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    assert [registry.roll_back().version for _ in range(2)] == [second, first]
    with pytest.raises(UnknownVersionError, match=third):
        registry.roll_back()


def test_roll_back_skips_versions_rolled_back_from(tmp_path):
    first, *_ = publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    registry.roll_back(first)
    fourth = publish_handmade(tmp_path, now=NOW + timedelta(days=3))
    assert registry.current().name == fourth
    assert registry.roll_back().version == first


def test_roll_back_skips_version_held_back(tmp_path):
    first = publish_handmade(tmp_path)
    registry = BundleRegistry(tmp_path)
    with registry.stage() as staged:
        (staged / "manifest.json").write_text("{}")
        registry.publish(staged, NOW + timedelta(days=1))
    publish_handmade(tmp_path, now=NOW + timedelta(days=2))
    assert registry.roll_back().version == first


def test_roll_back_skips_missing_versions(tmp_path):
    first, second, _ = publish_three(tmp_path)
    (tmp_path / second).rename(tmp_path / "elsewhere")
    registry = BundleRegistry(tmp_path)
    assert registry.prune(1) == []
    assert registry.roll_back().version == first


def test_roll_back_undone_by_name_restores_history(tmp_path):
    *_, third = publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    before = registry.pointer()
    registry.roll_back()
    after = registry.roll_back(third)
    assert after == before.model_copy(update={"sequence": before.sequence + 2})


def test_roll_back_to_named_version(tmp_path):
    first, _, _ = publish_three(tmp_path)
    pointer = BundleRegistry(tmp_path).roll_back(first)
    assert (pointer.version, pointer.previous) == (first, None)


def test_roll_back_increments_sequence(tmp_path):
    publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    before = registry.pointer().sequence
    assert registry.roll_back().sequence == before + 1


def test_roll_back_first_bundle_raises(tmp_path):
    version = publish_handmade(tmp_path)
    with pytest.raises(NoBundleError, match=f"no version before the current one.*{version}"):
        BundleRegistry(tmp_path).roll_back()


def test_prune_keeps_current_and_rollback_target(tmp_path):
    first, second, third = publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    assert registry.roll_back().version == second
    assert registry.prune(0) == [third]
    assert registry.roll_back().version == first


def test_prune_removes_report_with_its_bundle(tmp_path):
    first, second, third = publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    for version in (first, third):
        registry.report_path(version).write_text("a report")
    assert registry.versions() == [first, second, third]
    assert registry.prune(2) == [first]
    assert not registry.report_path(first).exists()
    assert registry.report_path(third).exists()


def test_prune_removes_states_that_no_bundle_names(tmp_path):
    registry = BundleRegistry(tmp_path)
    digests = ["a" * 64, "b" * 64, "b" * 64]
    for number, digest in enumerate(digests):
        with registry.stage() as staged:
            manifest = write_handmade(staged)
            training = {"training": {"state": {"sha256": digest, "size_bytes": 4}}}
            write_manifest(staged, manifest.model_copy(update={"run": training}))
            registry.make_current(registry.publish(staged, day(number)))
    paths = [registry.state_path(name) for name in ("a" * 64, "b" * 64, "unpublished", "killed")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(b"state")
    os.utime(paths[3], (0, 0))
    assert len(registry.prune(1)) == 1
    assert [path.exists() for path in paths] == [False, True, True, False]


def test_prune_keeps_staged_folder_in_use(tmp_path):
    publish_handmade(tmp_path)
    registry = BundleRegistry(tmp_path)
    with registry.stage() as staged:
        assert registry.prune(0) == []
        assert staged.is_dir()


def test_prune_removes_only_stale_incomplete_folders(tmp_path):
    first, second, _ = publish_three(tmp_path)
    for half in (first, second):
        (tmp_path / half / "manifest.json").unlink()
    os.utime(tmp_path / first, (0, 0))
    assert BundleRegistry(tmp_path).prune(3) == [first]
    assert not (tmp_path / first).exists()
    assert (tmp_path / second).is_dir()


@pytest.mark.parametrize("content", ["", "null", "{", '{"version": "../../etc"}'])
def test_damaged_pointer_raises_and_rollback_repairs(tmp_path, content):
    version = publish_handmade(tmp_path)
    (tmp_path / "current").write_text(content)
    registry = BundleRegistry(tmp_path)
    with pytest.raises(InvalidBundleError, match=r"python -m index rollback .* VERSION"):
        registry.current()
    assert registry.roll_back(version).version == version
    assert registry.current().name == version


def test_current_missing_version_lists_versions(tmp_path):
    first, second, _ = publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    registry.current().rename(tmp_path / "elsewhere")
    with pytest.raises(NoBundleError, match=f"{first}.*{second}"):
        registry.current()


def test_publish_from_two_processes(tmp_path):
    command = [sys.executable, "-c", PUBLISH_FIVE, str(tmp_path)]
    both = [subprocess.Popen([*command, prefix], cwd=ROOT) for prefix in ("left", "right")]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    registry = BundleRegistry(tmp_path)
    pointer = registry.pointer()
    assert len(registry.versions()) == 10
    assert {pointer.version, pointer.previous} <= set(registry.versions())
    assert not list(tmp_path.glob(".staging-*"))


def test_prepare_unwritable_folder_raises(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        BundleRegistry(tmp_path / "file").prepare()
