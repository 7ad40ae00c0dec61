"""Items that cannot be added, full disks and kills: nothing is published by half."""

import resource
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.publish import append
from tests.conftest import ROOT
from tests.support.added_items import (
    NEW,
    current,
    publish_with_years,
    run_add_items,
    wait_for_next_second,
    write_items,
)
from tests.support.synthetic_bundle import ITEM_COUNT, publish_handmade
from tests.support.synthetic_towers import DIM, visual_of


def test_add_items_without_features_raises_or_skips(bundles, tmp_path, capsys):
    visual = visual_of(NEW)
    visual[:2] = np.nan
    words = np.full((6, 3), np.nan)
    words[0] = [1, 0, 0]
    items = write_items(tmp_path / "items", look=visual, words=words)
    status, _, error_output = run_add_items(capsys, bundles, items)
    assert status == 1
    assert "found none for 1 items: 'new-1'; expected a row of look or words" in error_output
    status, output, _ = run_add_items(capsys, bundles, items, "--skip-empty")
    assert status == 0
    assert "items without features, skipped: 1" in output
    assert current(bundles).items.row_of("new-1") == -1
    assert current(bundles).items.row_of("new-5") == ITEM_COUNT + 4


def test_add_items_known_items_raise_or_skip(bundles, tmp_path, capsys):
    ids = ["item-3", "new-1", "item-5", "new-3", "new-4", "new-5"]
    items = write_items(tmp_path / "items", ids)
    before = current(bundles)
    status, _, error_output = run_add_items(capsys, bundles, items)
    assert status == 1
    assert "found 2 that are already in bundle" in error_output
    assert "'item-3', 'item-5'" in error_output
    status, output, _ = run_add_items(capsys, bundles, items, "--skip-known")
    assert status == 0
    assert "skipped: 2" in output
    after = current(bundles)
    assert len(after.items) == ITEM_COUNT + 4
    assert np.array_equal(after.vectors[:ITEM_COUNT], before.vectors)
    version = after.version
    status, output, _ = run_add_items(capsys, bundles, items, "--skip-known")
    assert status == 0
    assert f"nothing to add: {version} is unchanged" in output
    assert BundleRegistry(bundles).current().name == version


def test_add_items_reports_all_faults(bundles, tmp_path, capsys):
    items = write_items(
        tmp_path / "items",
        ["item-3", "new-1", "new-1", "new-3", "new-4", "new-5"],
        look=np.ones((6, DIM + 1)),
        sound=np.ones((6, 2)),
    )
    _, _, error_output = run_add_items(capsys, bundles, items)
    assert "each id in one row" in error_output
    (items / "items.parquet").unlink()
    write_items(items, ["item-3", "1", "2", "3", "4", "5"], look=np.ones((6, DIM + 1)))
    status, _, error_output = run_add_items(capsys, bundles, items)
    assert status == 1
    for message in (
        f"modality look: found width {DIM + 1}, expected {DIM}",
        "modality sound: bundle",
        "found 1 that are already in bundle",
    ):
        assert message in error_output
    assert len(BundleRegistry(bundles).versions()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such folder"), ([], "items.parquet: missing"), (["x"], "missing")],
)
def test_add_items_folder_without_items_fails(bundles, tmp_path, capsys, content, message):
    items = tmp_path / "items"
    if content is not None:
        items.mkdir()
        for name in content:
            (items / name).write_text("")
    status, _, error_output = run_add_items(capsys, bundles, items)
    assert (status, message in error_output) == (1, True)


def test_add_items_uncastable_column_fails(tmp_path, capsys):
    bundles = tmp_path / "bundles"
    first = publish_with_years(bundles)
    items = tmp_path / "items"
    write_items(items)
    (items / "items.parquet").unlink()
    rows = "\n".join(f"00{row},{row + 2000}" for row in range(6))
    (items / "items.csv").write_text(f"item_id,year\n{rows}")
    assert run_add_items(capsys, bundles, items)[0] == 0  # all columns of a CSV are text
    table = pq.read_table(current(bundles).folder / "items.parquet")
    assert table["year"].to_pylist()[-1] == 2005
    assert current(bundles).items.row_of("005") == ITEM_COUNT + 5
    wait_for_next_second()
    (items / "items.csv").write_text(f"item_id,year\n{rows.replace('2004', '')}")
    assert run_add_items(capsys, bundles, items, "--from", first)[0] == 0
    table = pq.read_table(current(bundles).folder / "items.parquet")
    assert table["year"].to_pylist()[-2:] == [None, 2005]  # an empty cell is null
    (items / "items.csv").write_text(f"item_id,year\n{rows.replace('2005', 'late')}")
    status, _, error_output = run_add_items(capsys, bundles, items, "--from", first)
    assert status == 1
    assert "column year: found string, expected the bundle's type int64" in error_output


def test_add_items_types_a_column_without_values(tmp_path, capsys):
    bundles = tmp_path / "bundles"
    publish_with_years(bundles, pa.nulls(40))
    items = write_items(tmp_path / "items", columns={"year": list(range(6))})
    assert run_add_items(capsys, bundles, items)[0] == 0
    years = pq.read_table(current(bundles).folder / "items.parquet")["year"].to_pylist()
    assert years == [None] * ITEM_COUNT + list(range(6))


def test_add_items_folder_that_changes_while_read_fails(bundles, items, capsys, monkeypatch):
    """The features of one export with the ids of the next would be another item's."""

    def read(folder, findings):
        items = read_items(folder, findings)
        write_items(folder, [f"new-{row}" for row in reversed(range(6))], NEW[::-1])
        return items

    read_items = append.read_items
    monkeypatch.setattr(append, "read_items", read)
    status, _, error_output = run_add_items(capsys, bundles, items)
    assert status == 1
    assert "features_look.npy, items.parquet: changed while the folder was read" in error_output
    assert len(BundleRegistry(bundles).versions()) == 1


@pytest.mark.parametrize("has_table", [True, False])
def test_add_items_features_without_rows_fail(bundles, tmp_path, capsys, has_table):
    items = write_items(tmp_path / "items", look=np.empty((0, 4)))
    if not has_table:
        (items / "items.parquet").unlink()
    status, _, error_output = run_add_items(capsys, bundles, items)
    assert (status, "features_look.npy: found no rows; expected" in error_output) == (1, True)


def test_add_items_without_item_encoder_fails(tmp_path, items, capsys):
    publish_handmade(tmp_path / "plain")
    status, _, error_output = run_add_items(capsys, tmp_path / "plain", items)
    assert status == 1
    assert "has no item encoder" in error_output
    status, _, error_output = run_add_items(capsys, tmp_path / "misspelt", items)
    assert (status, "no bundle is published here" in error_output) == (1, True)
    assert not (tmp_path / "misspelt").exists()


def test_add_items_full_disk_publishes_nothing(bundles, items):
    before = BundleRegistry(bundles).pointer()
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from index.__main__ import main; import index.publish.append;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({1_000}, {1_000}));"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "add-items", str(bundles), "--items", str(items)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "`current` is unchanged" in done.stderr
    assert "Traceback" not in done.stderr
    assert BundleRegistry(bundles).pointer() == before
    assert len(BundleRegistry(bundles).versions()) == 1
    assert not list(bundles.glob(".staging-*"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


KILLED_AFTER_CALLS = """
import os, signal, sys
import index.publish.append  # once: each attempt is a fork
from index.__main__ import main

def counted(real):
    def call(*parts, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*parts, **more)
    return call

for line in sys.stdin:
    if pid := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        continue
    left, sys.stdout = int(line), sys.stderr
    for name in ("mkdir", "rename", "replace"):
        setattr(os, name, counted(getattr(os, name)))
    os._exit(main(sys.argv[1:]))
"""


@pytest.fixture
def add_killed(bundles, items):
    """Function that adds the items and is killed after so many calls; returns the exit status."""
    adding = ["add-items", str(bundles), "--items", str(items)]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_AFTER_CALLS, *adding],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as process:  # fmt: skip

        def add(num_calls):
            process.stdin.write(f"{num_calls}\n")
            return int(process.stdout.readline())

        yield add


def test_add_items_killed_anywhere_can_be_repeated(bundles, add_killed):
    before, killed = BundleRegistry(bundles).pointer(), 0
    while BundleRegistry(bundles).pointer() == before:
        wait_for_next_second()  # versions have a resolution of one second
        status = add_killed(killed)
        assert status in (0, -signal.SIGKILL)
        assert status or BundleRegistry(bundles).pointer() != before
        killed += status != 0
        for version in BundleRegistry(bundles).versions():
            open_bundle(bundles / version)
    assert killed >= 5
    assert len(BundleRegistry(bundles).versions()) >= 3  # one was complete but not current
    assert len(current(bundles).items) == ITEM_COUNT + 6
