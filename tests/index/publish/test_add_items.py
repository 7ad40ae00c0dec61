import re
from datetime import timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

from index.__main__ import main
from index.ann.tuning import FLAT_LIMIT
from index.bundle.manifest import HISTORIES
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map import CLUSTER_FILES
from index.search.query import Query
from index.search.retriever import Retriever
from tests.support.added_items import NEW, current, run_add_items, wait_for_next_second, write_items
from tests.support.synthetic_bundle import (
    ITEM_COUNT,
    NOW,
    item_vectors,
    mean_query,
    publish_handmade,
    retrieve_single,
)


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


def test_add_items_help_lists_options(capsys):
    with pytest.raises(SystemExit):
        main(["add-items", "--help"])
    output = " ".join(capsys.readouterr().out.split())
    for word in ("--skip-known", "--from VERSION", "features_NAME.npy", "nothing is trained"):
        assert word in output
