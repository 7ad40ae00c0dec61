import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from index.bundle.registry import BundleRegistry
from index.errors import BundleError, InvalidBundleError, NoBundleError
from tests.support.synthetic_bundle import NOW, publish_handmade

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


def test_what_is_published_last_is_current_and_knows_the_one_before(tmp_path):
    _, second, third = publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    assert registry.current().name == third
    assert registry.pointer().previous == second


def test_published_is_not_yet_current(tmp_path):
    registry = BundleRegistry(tmp_path)
    with registry.stage() as staged:
        (staged / "manifest.json").write_text("{}")
        version = registry.publish(staged, NOW)
    assert registry.versions() == [version]
    with pytest.raises(NoBundleError, match="no bundle is published here yet; publish one"):
        registry.current()


def test_a_staged_folder_that_is_not_published_vanishes(tmp_path):
    registry = BundleRegistry(tmp_path)
    with pytest.raises(RuntimeError, match="mid-way"), registry.stage():
        raise RuntimeError("mid-way")
    assert list(tmp_path.iterdir()) == []


def test_one_version_is_never_published_twice(tmp_path):
    publish_handmade(tmp_path)
    with pytest.raises(BundleError, match="exists already"):
        publish_handmade(tmp_path)


def test_a_half_written_folder_is_no_bundle(tmp_path):
    version = publish_handmade(tmp_path)
    (tmp_path / "20270101T000000Z-abcd").mkdir()
    registry = BundleRegistry(tmp_path)
    assert registry.versions() == [version]
    with pytest.raises(NoBundleError, match="holds no bundle '20270101T000000Z-abcd'"):
        registry.make_current("20270101T000000Z-abcd")


def test_rolling_back_twice_returns_to_where_it_began(tmp_path):
    _, second, third = publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    assert registry.roll_back().version == second
    assert registry.roll_back().version == third


def test_rolling_back_leads_to_any_version_that_is_named(tmp_path):
    first, _, third = publish_three(tmp_path)
    pointer = BundleRegistry(tmp_path).roll_back(first)
    assert (pointer.version, pointer.previous) == (first, third)


def test_the_sequence_grows_even_when_versions_go_back(tmp_path):
    publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    before = registry.pointer().sequence
    assert registry.roll_back().sequence == before + 1


def test_the_first_bundle_has_none_before_it(tmp_path):
    version = publish_handmade(tmp_path)
    with pytest.raises(NoBundleError, match=f"no version before the current one.*{version}"):
        BundleRegistry(tmp_path).roll_back()


def test_pruning_keeps_the_current_bundle_and_the_one_before(tmp_path):
    first, second, third = publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    registry.roll_back(first)  # before it: the third
    assert registry.prune(0) == [second]
    assert registry.versions() == [first, third]
    assert registry.roll_back().version == third


def test_pruning_spares_what_a_run_is_writing(tmp_path):
    publish_handmade(tmp_path)
    registry = BundleRegistry(tmp_path)
    with registry.stage() as staged:
        assert registry.prune(0) == []
        assert staged.is_dir()


def test_pruning_finishes_what_a_killed_one_began_but_not_what_is_being_copied(tmp_path):
    first, second, _ = publish_three(tmp_path)
    for half in (first, second):
        (tmp_path / half / "manifest.json").unlink()
    os.utime(tmp_path / first, (0, 0))
    assert BundleRegistry(tmp_path).prune(3) == [first]
    assert not (tmp_path / first).exists()
    assert (tmp_path / second).is_dir()


@pytest.mark.parametrize("content", ["", "null", "{", '{"version": "../../etc"}'])
def test_a_broken_pointer_is_refused_with_the_way_to_repair_it(tmp_path, content):
    version = publish_handmade(tmp_path)
    (tmp_path / "current").write_text(content)
    registry = BundleRegistry(tmp_path)
    with pytest.raises(InvalidBundleError, match=r"python -m index rollback .* VERSION"):
        registry.current()
    assert registry.roll_back(version).version == version
    assert registry.current().name == version


def test_a_pointer_to_a_version_that_is_gone_names_what_there_is(tmp_path):
    first, second, _ = publish_three(tmp_path)
    registry = BundleRegistry(tmp_path)
    registry.current().rename(tmp_path / "elsewhere")
    with pytest.raises(NoBundleError, match=f"{first}.*{second}"):
        registry.current()


def test_two_processes_may_publish_at_once(tmp_path):
    command = [sys.executable, "-c", PUBLISH_FIVE, str(tmp_path)]
    both = [subprocess.Popen([*command, prefix], cwd=ROOT) for prefix in ("left", "right")]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    registry = BundleRegistry(tmp_path)
    pointer = registry.pointer()
    assert len(registry.versions()) == 10
    assert {pointer.version, pointer.previous} <= set(registry.versions())
    assert not list(tmp_path.glob(".staging-*"))


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        BundleRegistry(tmp_path / "file").prepare()
