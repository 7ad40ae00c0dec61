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
from index.bundle.manifest import HISTORIES, facts_of, write_manifest
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
    retrieve_one,
    write_handmade,
)
from tests.support.synthetic_towers import DIM, look_of

NEW = item_vectors(6, seed=7)  # new-0, new-2 ... are even, new-1 ... are odd


@pytest.fixture
def bundles(tmp_path):
    """A folder with one bundle that can encode items."""
    folder = tmp_path / "bundles"
    publish_handmade(folder, with_content=True, clusters=handmade_map())
    return folder


def write_items(folder, ids=None, vectors=NEW, columns=None, **features):
    """Write a folder of items whose look makes the item encoder answer these vectors."""
    folder.mkdir(exist_ok=True)
    ids = ids or [f"new-{row}" for row in range(len(vectors))]
    pq.write_table(pa.table({"item_id": ids, **(columns or {})}), folder / "items.parquet")
    for name, rows in ({"look": look_of(vectors)} | features).items():
        if rows is not None:
            np.save(folder / f"features_{name}.npy", np.asarray(rows, dtype=np.float32))
    return folder


@pytest.fixture
def items(tmp_path):
    return write_items(tmp_path / "items")


def add(capsys, bundles, items, *options):
    """Run the command; return its status, its words and its complaint."""
    status = main(["add-items", str(bundles), "--items", str(items), *options])
    said = capsys.readouterr()
    return status, said.out, said.err


def current(bundles):
    return open_bundle(BundleRegistry(bundles).current())


def test_new_items_are_found_like_any_other(bundles, items, capsys):
    before = BundleRegistry(bundles).current().name
    status, said, _ = add(capsys, bundles, items)
    assert status == 0
    assert f"6 items added to {before}; published {BundleRegistry(bundles).current().name}" in said
    assert "modalities that all of them lack: words" in said
    bundle = current(bundles)
    np.testing.assert_allclose(bundle.vectors[ITEM_COUNT:], NEW, atol=1e-6)
    retriever = Retriever(bundle)
    vectors = np.concatenate([item_vectors(), NEW])
    alike = retrieve_one(retriever, Query(45, item_id="new-0"))
    assert np.array_equal(
        alike.rows, np.argsort(-(vectors @ NEW[0]), kind="stable")[1:].astype(np.int32)
    )
    found = retrieve_one(retriever, Query(46, history=["item-0", "new-2"], exclude_seen=False))
    query = mean_query(vectors, [0, ITEM_COUNT + 2])
    assert (
        found.item_ids[0]
        == ([f"item-{row}" for row in range(40)] + [f"new-{row}" for row in range(6)])[
            int(np.argmax(vectors @ query))
        ]
    )
    assert len(found.item_ids) == 46
    popular = retrieve_one(retriever, Query(46)).item_ids
    assert popular[-6:] == [f"new-{row}" for row in range(6)]


def test_everything_else_is_carried_over_unchanged(bundles, items, capsys):
    old = current(bundles)
    add(capsys, bundles, items)
    new = current(bundles)
    for name in (*HISTORIES, *CLUSTER_FILES, "user_encoder.onnx", "item_encoder.onnx"):
        assert new.manifest.files[name] == old.manifest.files[name], name
    assert np.array_equal(new.vectors[:ITEM_COUNT], old.vectors)
    assert np.array_equal(new.counts, [*old.counts, *[0] * 6])
    kept = {"dataset", "run", "modalities", "cluster_maps", "metrics", "name", "embedding_dim"}
    for name in kept:
        assert getattr(new.manifest, name) == getattr(old.manifest, name)
    asked = Query(5, user_id="user-0", exclude=[f"new-{row}" for row in range(6)])
    assert (
        retrieve_one(Retriever(new), asked).item_ids == retrieve_one(Retriever(old), asked).item_ids
    )


def test_the_manifest_tells_what_was_added_to_what(bundles, items, tmp_path, capsys):
    first = BundleRegistry(bundles).current().name
    add(capsys, bundles, items)
    second = BundleRegistry(bundles).current().name
    wait_a_second()  # a version's name tells seconds
    more = write_items(tmp_path / "more", ["later"], NEW[:1])
    add(capsys, bundles, more)
    told = current(bundles).manifest.added
    assert [(one.to, one.count) for one in told] == [(first, 6), (second, 1)]
    assert len(current(bundles).items) == ITEM_COUNT + 7
    pointer = BundleRegistry(bundles).pointer()
    assert pointer.previous == second
    BundleRegistry(bundles).roll_back()
    assert len(current(bundles).items) == ITEM_COUNT + 6


def wait_a_second():
    now = int(time.time())
    wait_until(lambda: int(time.time()) > now)


def test_attributes_and_filters_grow_and_new_values_appear(bundles, tmp_path, capsys):
    columns = {
        "title": ["the first", "the second", None, "4", "5", "6"],
        "parity": ["even", "odd", "even", "neither", "", None],
        "tags": [["tag 1", "brand new"], [], None, ["tag 1"], [], []],
        "odd": [None, True, None, None, None, None],
        "mood": ["glad"] * 6,
        "beyond": [1, 2, 3, 4, 5, 6],
    }
    items = write_items(tmp_path / "items", columns=columns)
    status, _, complaint = add(capsys, bundles, items)
    assert (status, complaint) == (0, "")
    bundle = current(bundles)
    assert bundle.manifest.filters["parity"] == 3
    assert bundle.manifest.filters["mood"] == 1  # which no item had
    assert bundle.manifest.filters["tags"] == 6
    assert bundle.attributes.of(np.array([40, 41, 42])) == [
        b'{"title":"the first"}',
        b'{"title":"the second","odd":true}',
        b"{}",
    ]

    def found(**filters):
        question = Query(100, history=["item-0"], exclude_seen=False, filter=filters)
        return {*retrieve_one(Retriever(bundle), question).item_ids}

    assert found(parity=["neither"]) == {"new-3"}
    assert found(tags=["brand new"], parity=["even"]) == {"new-0"}
    assert found(mood=["glad"]) == {f"new-{row}" for row in range(6)}
    assert found(odd=["true"]) == {f"item-{row}" for row in range(1, 40, 2)} | {"new-1"}
    table = pq.read_table(bundle.folder / "items.parquet")
    assert len(table) == 46
    assert table["beyond"].to_pylist()[38:42] == [None, None, 1, 2]


def test_an_item_may_lack_a_modality_but_not_all(bundles, tmp_path, capsys):
    looks = look_of(NEW)
    looks[:2] = np.nan
    words = np.full((6, 3), np.nan)
    words[0] = [1, 0, 0]
    items = write_items(tmp_path / "items", look=looks, words=words)
    status, _, complaint = add(capsys, bundles, items)
    assert status == 1
    assert "found none of 1 items: 'new-1'; expected a row of look or words" in complaint
    status, said, _ = add(capsys, bundles, items, "--skip-empty")
    assert status == 0
    assert "items without any features, left out: 1" in said
    assert current(bundles).items.row_of("new-1") == -1
    assert current(bundles).items.row_of("new-5") == ITEM_COUNT + 4


def test_known_items_are_one_error_or_left_out(bundles, tmp_path, capsys):
    ids = ["item-3", "new-1", "item-5", "new-3", "new-4", "new-5"]
    items = write_items(tmp_path / "items", ids)
    before = current(bundles)
    status, _, complaint = add(capsys, bundles, items)
    assert status == 1
    assert "found 2 that bundle" in complaint
    assert "'item-3', 'item-5'" in complaint
    status, said, _ = add(capsys, bundles, items, "--skip-known")
    assert status == 0
    assert "left out: 2" in said
    after = current(bundles)
    assert len(after.items) == ITEM_COUNT + 4
    assert np.array_equal(after.vectors[:ITEM_COUNT], before.vectors)
    version = after.version
    status, said, _ = add(capsys, bundles, items, "--skip-known")
    assert status == 0
    assert f"nothing to add: {version} stays as it is" in said
    assert BundleRegistry(bundles).current().name == version


def test_all_faults_of_a_folder_are_told_at_once(bundles, tmp_path, capsys):
    items = write_items(
        tmp_path / "items",
        ["item-3", "new-1", "new-1", "new-3", "new-4", "new-5"],
        look=np.ones((6, DIM + 1)),
        sound=np.ones((6, 2)),
    )
    _, _, complaint = add(capsys, bundles, items)
    assert "each id in one row" in complaint
    (items / "items.parquet").unlink()
    write_items(items, ["item-3", "1", "2", "3", "4", "5"], look=np.ones((6, DIM + 1)))
    status, _, complaint = add(capsys, bundles, items)
    assert status == 1
    for told in (
        f"modality look: found {DIM + 1} numbers an item, expected {DIM}",
        "modality sound: bundle",
        "found 1 that bundle",
    ):
        assert told in complaint
    assert len(BundleRegistry(bundles).versions()) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "no such folder"), ([], "items.parquet: missing"), (["x"], "missing")],
)
def test_a_folder_without_items_is_told(bundles, tmp_path, capsys, content, told):
    items = tmp_path / "items"
    if content is not None:
        items.mkdir()
        for name in content:
            (items / name).write_text("")
    status, _, complaint = add(capsys, bundles, items)
    assert (status, told in complaint) == (1, True)


def publish_with_years(bundles):
    """Publish a bundle whose table has a column of integers; returns its version."""
    registry = BundleRegistry(bundles)
    with registry.stage() as staged:
        manifest = write_handmade(staged, with_content=True)
        years = {"item_id": [f"item-{row}" for row in range(40)], "year": list(range(40))}
        pq.write_table(pa.table(years), staged / "items.parquet")
        write_manifest(staged, manifest.model_copy(update={"files": facts_of(staged)}))
        version = registry.publish(staged, NOW)
    registry.make_current(version)
    return version


def test_a_column_that_cannot_be_of_the_published_type_is_told(tmp_path, capsys):
    bundles = tmp_path / "bundles"
    first = publish_with_years(bundles)
    items = tmp_path / "items"
    write_items(items)
    (items / "items.parquet").unlink()
    rows = "\n".join(f"00{row},{row + 2000}" for row in range(6))
    (items / "items.csv").write_text(f"item_id,year\n{rows}")
    assert add(capsys, bundles, items)[0] == 0  # of a CSV, where all is text
    table = pq.read_table(current(bundles).folder / "items.parquet")
    assert table["year"].to_pylist()[-1] == 2005
    assert current(bundles).items.row_of("005") == ITEM_COUNT + 5
    wait_a_second()
    (items / "items.csv").write_text(f"item_id,year\n{rows.replace('2004', '')}")
    assert add(capsys, bundles, items, "--from", first)[0] == 0
    table = pq.read_table(current(bundles).folder / "items.parquet")
    assert table["year"].to_pylist()[-2:] == [None, 2005]  # an empty cell says nothing
    (items / "items.csv").write_text(f"item_id,year\n{rows.replace('2005', 'late')}")
    status, _, complaint = add(capsys, bundles, items, "--from", first)
    assert status == 1
    assert "column year: found string, expected what can be read as int64" in complaint


def test_a_bundle_that_cannot_encode_items_says_so(tmp_path, items, capsys):
    publish_handmade(tmp_path / "plain")
    status, _, complaint = add(capsys, tmp_path / "plain", items)
    assert status == 1
    assert "has no item encoder" in complaint
    status, _, complaint = add(capsys, tmp_path / "misspelt", items)
    assert (status, "no bundle is published here" in complaint) == (1, True)
    assert not (tmp_path / "misspelt").exists()


def test_one_may_extend_another_version_and_leave_current_alone(bundles, items, capsys):
    first = BundleRegistry(bundles).current().name
    second = publish_handmade(bundles, now=NOW + timedelta(days=1), with_content=True, count=20)
    pointer = BundleRegistry(bundles).pointer()
    status, said, _ = add(capsys, bundles, items, "--from", first, "--no-current")
    assert (status, "not made current, as asked" in said) == (0, True)
    assert BundleRegistry(bundles).pointer() == pointer
    assert BundleRegistry(bundles).current().name == second
    extended = open_bundle(bundles / BundleRegistry(bundles).versions()[-1])
    assert len(extended.items) == 46
    status, _, complaint = add(capsys, bundles, items, "--from", "20200101T000000Z-0000")
    assert (status, "holds no bundle" in complaint) == (1, True)


def test_a_bundle_that_became_current_meanwhile_is_not_undone(bundles):
    registry = BundleRegistry(bundles)
    before = registry.pointer()
    later = publish_handmade(bundles, now=NOW + timedelta(days=1))
    with pytest.raises(Exception, match=f"meanwhile {later} was") as refused:
        registry.advance(before.version, before)
    assert f"python -m index rollback {bundles} {before.version}" in str(refused.value)
    assert registry.pointer().version == later


def test_a_catalogue_that_outgrows_the_exact_index_gets_another(tmp_path, capsys):
    bundles = tmp_path / "bundles"
    publish_handmade(bundles, count=FLAT_LIMIT - 10, with_content=True, with_described=False)
    assert current(bundles).manifest.index.factory == "Flat"
    vectors = item_vectors(20, seed=3)
    status, said, _ = add(capsys, bundles, write_items(tmp_path / "items", vectors=vectors))
    assert (status, re.findall(r"@\d+", said)) == (0, ["@100", "@200", "@1000"])
    grown = current(bundles)
    assert grown.manifest.index.factory == "IVF1024,SQ8"
    assert grown.manifest.index.recall[100] >= 0.95
    wait_a_second()
    ids = [f"newer-{row}" for row in range(20)]
    assert add(capsys, bundles, write_items(tmp_path / "more", ids, vectors))[0] == 0
    again = current(bundles)
    assert again.manifest.index.factory == "IVF1024,SQ8"
    assert again.index.count == FLAT_LIMIT + 30
    found = retrieve_one(Retriever(again), Query(1, item_id="newer-3"))
    assert found.item_ids == ["new-3"]  # which is the same


def test_a_disk_that_is_full_publishes_nothing(bundles, items):
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
    assert "stopped by the system" in done.stderr
    assert "Traceback" not in done.stderr
    assert BundleRegistry(bundles).pointer() == before
    assert len(BundleRegistry(bundles).versions()) == 1
    assert not list(bundles.glob(".staging-*"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


KILLED_AT = """
import os, signal, sys
from index.__main__ import main

left = int(sys.argv.pop(1))

def counted(real):
    def call(*parts, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*parts, **more)
    return call

for name in ("mkdir", "rename", "replace"):
    setattr(os, name, counted(getattr(os, name)))
sys.exit(main())
"""


def test_a_kill_in_the_middle_loses_nothing_and_the_same_command_goes_through(bundles, items):
    before, killed = BundleRegistry(bundles).pointer(), 0
    while BundleRegistry(bundles).pointer() == before:
        wait_a_second()  # a version is named by it
        command = [sys.executable, "-c", KILLED_AT, str(killed)]
        adding = [*command, "add-items", str(bundles), "--items", str(items)]
        done = subprocess.run(adding, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        assert done.returncode or BundleRegistry(bundles).pointer() != before
        killed += done.returncode != 0
        for version in BundleRegistry(bundles).versions():
            open_bundle(bundles / version)
    assert killed >= 5
    assert (
        len(BundleRegistry(bundles).versions()) >= 3
    )  # one was complete, and had not become current
    assert len(current(bundles).items) == ITEM_COUNT + 6


def test_the_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["add-items", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for word in ("--skip-known", "--from VERSION", "features_NAME.npy", "nothing is trained"):
        assert word in told
