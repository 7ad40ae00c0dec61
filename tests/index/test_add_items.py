import re
import resource
import signal
import subprocess
import sys
import time
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.__main__ import main
from index.ann.tuning import FLAT_LIMIT
from index.bundle.manifest import HISTORIES, measure_files, write_manifest
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map import CLUSTER_FILES
from index.search.query import Query
from index.search.retriever import Retriever
from tests.conftest import ROOT
from tests.support.redis_server import wait_until
from tests.support.synthetic_bundle import (
    ITEM_COUNT,
    NOW,
    handmade_map,
    item_vectors,
    mean_query,
    publish_handmade,
    retrieve_single,
    write_handmade,
)
from tests.support.synthetic_towers import DIM, visual_of

NEW = item_vectors(6, seed=7)  # new-0, new-2 ... are even, new-1 ... are odd


@pytest.fixture
def bundles(tmp_path):
    """A registry with one bundle that has an item encoder."""
    folder = tmp_path / "bundles"
    publish_handmade(folder, with_content=True, clusters=handmade_map())
    return folder


def write_items(folder, ids=None, vectors=NEW, columns=None, **features):
    """Write a folder of items that the item encoder maps to these vectors."""
    folder.mkdir(exist_ok=True)
    ids = ids or [f"new-{row}" for row in range(len(vectors))]
    pq.write_table(pa.table({"item_id": ids, **(columns or {})}), folder / "items.parquet")
    for name, rows in ({"look": visual_of(vectors)} | features).items():
        if rows is not None:
            np.save(folder / f"features_{name}.npy", np.asarray(rows, dtype=np.float32))
    return folder


@pytest.fixture
def items(tmp_path):
    return write_items(tmp_path / "items")


def run_add_items(capsys, bundles, items, *options):
    """Run the command; return its status, stdout and stderr."""
    status = main(["add-items", str(bundles), "--items", str(items), *options])
    output = capsys.readouterr()
    return status, output.out, output.err


def current(bundles):
    return open_bundle(BundleRegistry(bundles).current())


def test_add_items_new_items_are_retrieved(bundles, items, capsys):
    before = BundleRegistry(bundles).current().name
    status, output, _ = run_add_items(capsys, bundles, items)
    assert status == 0
    assert (
        f"6 items added to {before}; published {BundleRegistry(bundles).current().name}" in output
    )
    assert "modalities missing for all items: words" in output
    bundle = current(bundles)
    np.testing.assert_allclose(bundle.vectors[ITEM_COUNT:], NEW, atol=1e-6)
    retriever = Retriever(bundle)
    vectors = np.concatenate([item_vectors(), NEW])
    alike = retrieve_single(retriever, Query(45, item_id="new-0"))
    assert np.array_equal(
        alike.rows, np.argsort(-(vectors @ NEW[0]), kind="stable")[1:].astype(np.int32)
    )
    result = retrieve_single(retriever, Query(46, history=["item-0", "new-2"], exclude_seen=False))
    query = mean_query(vectors, [0, ITEM_COUNT + 2])
    assert (
        result.item_ids[0]
        == ([f"item-{row}" for row in range(40)] + [f"new-{row}" for row in range(6)])[
            int(np.argmax(vectors @ query))
        ]
    )
    assert len(result.item_ids) == 46
    popular = retrieve_single(retriever, Query(46)).item_ids
    assert popular[-6:] == [f"new-{row}" for row in range(6)]


def test_add_items_keeps_everything_else(bundles, items, capsys):
    old = current(bundles)
    run_add_items(capsys, bundles, items)
    new = current(bundles)
    for name in (*HISTORIES, *CLUSTER_FILES, "user_encoder.onnx", "item_encoder.onnx"):
        assert new.manifest.files[name] == old.manifest.files[name], name
    assert np.array_equal(new.vectors[:ITEM_COUNT], old.vectors)
    assert np.array_equal(new.counts, [*old.counts, *[0] * 6])
    kept = {"dataset", "run", "modalities", "cluster_maps", "metrics", "name", "embedding_dim"}
    for name in kept:
        assert getattr(new.manifest, name) == getattr(old.manifest, name)
    query = Query(5, user_id="user-0", exclude=[f"new-{row}" for row in range(6)])
    assert (
        retrieve_single(Retriever(new), query).item_ids
        == retrieve_single(Retriever(old), query).item_ids
    )


def test_add_items_manifest_lists_additions(bundles, items, tmp_path, capsys):
    first = BundleRegistry(bundles).current().name
    run_add_items(capsys, bundles, items)
    second = BundleRegistry(bundles).current().name
    wait_for_next_second()  # versions have a resolution of one second
    more = write_items(tmp_path / "more", ["later"], NEW[:1])
    run_add_items(capsys, bundles, more)
    additions = current(bundles).manifest.added
    assert [(addition.to, addition.count) for addition in additions] == [(first, 6), (second, 1)]
    assert len(current(bundles).items) == ITEM_COUNT + 7
    pointer = BundleRegistry(bundles).pointer()
    assert pointer.previous == second
    BundleRegistry(bundles).roll_back()
    assert len(current(bundles).items) == ITEM_COUNT + 6


def wait_for_next_second():
    now = int(time.time())
    wait_until(lambda: int(time.time()) > now)


def test_add_items_extends_attributes_and_filters(bundles, tmp_path, capsys):
    columns = {
        "title": ["the first", "the second", None, "4", "5", "6"],
        "parity": ["even", "odd", "even", "neither", "", None],
        "tags": [["tag 1", "brand new"], [], None, ["tag 1"], [], []],
        "odd": [None, True, None, None, None, None],
        "mood": ["glad"] * 6,
        "beyond": [1, 2, 3, 4, 5, 6],
    }
    items = write_items(tmp_path / "items", columns=columns)
    status, _, error_output = run_add_items(capsys, bundles, items)
    assert (status, error_output) == (0, "")
    bundle = current(bundles)
    assert bundle.manifest.filters["parity"] == 3
    assert bundle.manifest.filters["mood"] == 1  # no item had it before
    assert bundle.manifest.filters["tags"] == 6
    assert bundle.attributes.get(np.array([40, 41, 42])) == [
        b'{"title":"the first"}',
        b'{"title":"the second","odd":true}',
        b"{}",
    ]

    def search_ids(**filters):
        query = Query(100, history=["item-0"], exclude_seen=False, filter=filters)
        return {*retrieve_single(Retriever(bundle), query).item_ids}

    assert search_ids(parity=["neither"]) == {"new-3"}
    assert search_ids(tags=["brand new"], parity=["even"]) == {"new-0"}
    assert search_ids(mood=["glad"]) == {f"new-{row}" for row in range(6)}
    assert search_ids(odd=["true"]) == {f"item-{row}" for row in range(1, 40, 2)} | {"new-1"}
    table = pq.read_table(bundle.folder / "items.parquet")
    assert len(table) == 46
    assert table["beyond"].to_pylist()[38:42] == [None, None, 1, 2]


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


def publish_with_years(bundles):
    """Publish a bundle whose table has a column of integers; returns its version."""
    registry = BundleRegistry(bundles)
    with registry.stage() as staged:
        manifest = write_handmade(staged, with_content=True)
        years = {"item_id": [f"item-{row}" for row in range(40)], "year": list(range(40))}
        pq.write_table(pa.table(years), staged / "items.parquet")
        write_manifest(staged, manifest.model_copy(update={"files": measure_files(staged)}))
        version = registry.publish(staged, NOW)
    registry.make_current(version)
    return version


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


def test_add_items_without_item_encoder_fails(tmp_path, items, capsys):
    publish_handmade(tmp_path / "plain")
    status, _, error_output = run_add_items(capsys, tmp_path / "plain", items)
    assert status == 1
    assert "has no item encoder" in error_output
    status, _, error_output = run_add_items(capsys, tmp_path / "misspelt", items)
    assert (status, "no bundle is published here" in error_output) == (1, True)
    assert not (tmp_path / "misspelt").exists()


def test_add_items_from_version_keeps_current(bundles, items, capsys):
    first = BundleRegistry(bundles).current().name
    second = publish_handmade(bundles, now=NOW + timedelta(days=1), with_content=True, count=20)
    pointer = BundleRegistry(bundles).pointer()
    status, output, _ = run_add_items(capsys, bundles, items, "--from", first, "--no-current")
    assert (status, "`current` is unchanged (--no-current)" in output) == (0, True)
    assert BundleRegistry(bundles).pointer() == pointer
    assert BundleRegistry(bundles).current().name == second
    extended = open_bundle(bundles / BundleRegistry(bundles).versions()[-1])
    assert len(extended.items) == 46
    status, _, error_output = run_add_items(
        capsys, bundles, items, "--from", "20200101T000000Z-0000"
    )
    assert (status, "holds no bundle" in error_output) == (1, True)


def test_advance_after_pointer_change_raises(bundles):
    registry = BundleRegistry(bundles)
    before = registry.pointer()
    later = publish_handmade(bundles, now=NOW + timedelta(days=1))
    with pytest.raises(Exception, match=f"meanwhile {later} became current") as refused:
        registry.advance(before.version, before)
    assert f"python -m index rollback {bundles} {before.version}" in str(refused.value)
    assert registry.pointer().version == later


def test_add_items_beyond_flat_limit_builds_ivf(tmp_path, capsys):
    bundles = tmp_path / "bundles"
    publish_handmade(bundles, count=FLAT_LIMIT - 10, with_content=True, with_metadata=False)
    assert current(bundles).manifest.index.factory == "Flat"
    vectors = item_vectors(20, seed=3)
    status, output, _ = run_add_items(
        capsys, bundles, write_items(tmp_path / "items", vectors=vectors)
    )
    assert (status, re.findall(r"@\d+", output)) == (0, ["@100", "@200", "@1000"])
    grown = current(bundles)
    assert grown.manifest.index.factory == "IVF1024,SQ8"
    assert grown.manifest.index.recall[100] >= 0.95
    wait_for_next_second()
    ids = [f"newer-{row}" for row in range(20)]
    assert run_add_items(capsys, bundles, write_items(tmp_path / "more", ids, vectors))[0] == 0
    again = current(bundles)
    assert again.manifest.index.factory == "IVF1024,SQ8"
    assert again.index.num_items == FLAT_LIMIT + 30
    result = retrieve_single(Retriever(again), Query(1, item_id="newer-3"))
    assert result.item_ids == ["new-3"]  # has the same vector


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


def test_add_items_help_lists_options(capsys):
    with pytest.raises(SystemExit):
        main(["add-items", "--help"])
    output = " ".join(capsys.readouterr().out.split())
    for word in ("--skip-known", "--from VERSION", "features_NAME.npy", "nothing is trained"):
        assert word in output
