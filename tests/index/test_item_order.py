"""A bundle with lists keeps its items in the order of the lists; nobody asking can tell."""

from dataclasses import replace

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest

from index.bundle import open_bundle
from index.centres import Effort, Look
from index.item_index import ItemIndex
from index.retriever import Question, Retriever, SimilarQuestion
from index.searching.limits import LIMITS
from index.searching.row_set import RowSet
from index.searching.scope import Scope
from index.searching.scores import best_by
from index.searching.search import Ask, Search
from service.live.live_clusters import own_map
from tests.handmade import handmade_map, publish_handmade
from trainer.report.items_sections import map_of_all

COUNT = 900


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    bundles = tmp_path_factory.mktemp("plain")
    clusters = handmade_map(COUNT)
    return open_bundle(bundles / publish_handmade(bundles, count=COUNT, clusters=clusters))


@pytest.fixture(scope="module")
def ordered(tmp_path_factory):
    bundles = tmp_path_factory.mktemp("ordered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("index.searching.tuning.FLAT_LIMIT", COUNT - 1)
        version = publish_handmade(bundles, count=COUNT, clusters=handmade_map(COUNT))
    return open_bundle(bundles / version)


@pytest.fixture(scope="module")
def rows(plain, ordered):
    """The row that each item of the plain bundle has in the other one."""
    return ordered.items.rows_of(ids_of(plain))


def ids_of(bundle):
    return bundle.items.ids_of(np.arange(len(bundle.items)))


def test_rows_stand_list_by_list(ordered):
    assert ordered.index.list_count > 1
    lists = ordered.index.lists_of_rows()
    assert len(np.unique(lists)) > 1
    assert (np.diff(lists) >= 0).all()
    assert (ordered.index.list_order() == np.arange(COUNT)).all()


def test_rows_are_told_by_their_places_as_if_their_numbers_had_been_read(ordered):
    index, queries = ordered.index, ordered.vectors[::90]
    assert index.starts is not None
    read = replace(index, starts=None)
    odd = RowSet.from_rows(np.arange(1, COUNT, 2, dtype=np.int32), COUNT)
    for count, effort, eligible in (
        (30, Effort(), None), (COUNT + 9, Effort(np.inf), None), (30, Effort(np.inf), odd),
    ):  # fmt: skip
        own, other = [
            best_by(*one.search(queries, count, effort, eligible), [count] * len(queries))
            for one in (index, read)
        ]
        assert (own == other).all()
        if eligible is None:
            assert (own[:, 0] == np.arange(0, COUNT, 90)).all()
        else:
            assert (own % 2 == 1).all()


def test_rows_are_read_where_one_is_in_no_list(ordered, tmp_path):
    opened = faiss.read_index(str(ordered.folder / "items.faiss"))
    lists = ordered.index.lists_of_rows()
    rows = faiss.rev_swig_ptr(
        opened.invlists.get_ids(int(lists[0])), int((lists == lists[0]).sum())
    )
    assert rows[0] == 0
    rows[0] = COUNT - 1
    faiss.write_index(opened, str(tmp_path / "items.faiss"))
    assert ItemIndex.open(tmp_path / "items.faiss").starts is None


def test_some_denied_items_among_the_best_make_nobody_search_again(ordered, monkeypatch):
    query = ordered.vectors[0]
    rows = np.argsort(-(ordered.vectors @ query), kind="stable").astype(np.int32)
    denied, far = RowSet.from_rows(rows[:40:4], COUNT), rows[-25:]
    asked, search = [], ItemIndex.search
    monkeypatch.setattr(ItemIndex, "search", lambda *parts: asked.append(1) or search(*parts))
    ask = Ask(query, 40, far, Scope(denied.complement()))
    few = replace(LIMITS, few=20)
    (found,) = Search(ordered.index, ordered.vectors, few).find_quickly([ask])
    assert (len(asked), len(found[0])) == (1, 40)
    assert not denied.contains(found[0]).any()


@pytest.mark.parametrize("is_turned", [False, True])
def test_rows_that_stand_otherwise_are_read(ordered, tmp_path, is_turned):
    index = ItemIndex.trained(ordered.vectors, "IVF15,SQ8", seed=0)
    order = index.list_order()[::-1] if is_turned else index.list_order()
    vectors = ordered.vectors[order]
    index.renumbered(order, vectors).save(tmp_path / "items.faiss")
    opened = ItemIndex.open(tmp_path / "items.faiss").looking([Look(1.0, 2.0, 8.0)])
    assert (opened.starts is None) == is_turned
    assert best_by(*opened.search(vectors[:5], 1), [1] * 5)[:, 0].tolist() == list(range(5))


def test_what_is_told_of_an_item_goes_with_it(plain, ordered, rows):
    assert sorted(rows.tolist()) == list(range(COUNT))
    assert rows.tolist() != list(range(COUNT))
    np.testing.assert_array_equal(ordered.vectors[rows], plain.vectors)
    np.testing.assert_array_equal(ordered.counts[rows], plain.counts)
    every = np.arange(COUNT)
    assert ordered.attributes.of(rows) == plain.attributes.of(every)
    table = pq.read_table(ordered.folder / "items.parquet")
    assert table["item_id"].to_pylist() == ids_of(ordered)


def test_filters_keep_the_same_items(plain, ordered):
    assert ordered.filters.value_counts() == plain.filters.value_counts()
    for attribute, values in (("parity", ["even", "odd"]), ("tags", ["tag 1", "tag 4"])):
        lists = zip(
            ordered.filters.of(attribute, values),
            plain.filters.of(attribute, values),
            strict=True,
        )
        for own, before in lists:
            assert (np.diff(own) > 0).all()
            assert sorted(ordered.items.ids_of(own)) == sorted(plain.items.ids_of(before))


def test_histories_hold_the_same_items(plain, ordered):
    for user in ("user-0", "user-1", "user-2"):
        own, before = ordered.histories.of(user), plain.histories.of(user)
        assert ordered.items.ids_of(own) == plain.items.ids_of(before)


@pytest.mark.parametrize(
    "question",
    [
        Question(50, history=["item-7", "item-9"]),
        Question(50, user_id="user-1"),
        Question(20, history=["item-8"], filter={"tags": ["tag 2"], "parity": ["even"]}),
        Question(50),
    ],
)
def test_the_same_question_finds_the_same_items(plain, ordered, question):
    expected, found = (Retriever(one).find(question) for one in (plain, ordered))
    assert found.fallback == expected.fallback
    if found.scores is None:
        assert found.item_ids == expected.item_ids
        return
    (prepared,) = Retriever(plain).prepare([question])
    own = plain.vectors[plain.items.rows_of(found.item_ids)] @ prepared.query
    np.testing.assert_allclose(found.scores, own, atol=1e-6)
    assert np.isin(found.item_ids, expected.item_ids).mean() > 0.8  # of an index so small
    seen = plain.items.ids_of(prepared.excluded)
    assert not set(found.item_ids) & set(seen)


def test_similar_items_are_found_by_the_items_own_vector(plain, ordered):
    expected, found = (
        Retriever(one).similar(SimilarQuestion("item-123", 20)) for one in (plain, ordered)
    )
    assert np.isin(found.item_ids, expected.item_ids).mean() > 0.8
    assert "item-123" not in found.item_ids


def test_a_map_in_the_order_of_the_dataset_is_read_by_id(ordered):
    own = own_map(ordered)
    assert own.version == ordered.clusters.version
    carried = map_of_all(ordered)
    places = {one: place for place, one in enumerate(own.id_hashes.tolist())}
    for row in range(0, COUNT, 37):
        place = places[int(ordered.items.hashes_by_row()[row])]
        assert carried.codes1[row] == own.codes1[place]
        assert carried.codes2[row] == own.codes2[place]
