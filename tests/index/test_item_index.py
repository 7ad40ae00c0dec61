import numpy as np
import pytest

from index.effort import lists_within
from index.item_index import ItemIndex
from index.limits import LIMITS
from index.row_set import RowSet
from index.scores import best_rows, exact_scores
from index.tuning import FLAT_LIMIT, build_item_index, list_count
from tests.handmade import item_vectors

CLUSTERED_COUNT, DIM, CENTRES = 60_000, 16, 200


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def clustered():
    """60,000 vectors in clumps, and queries from the same clumps."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, DIM))
    around = centres[np.arange(CLUSTERED_COUNT) % CENTRES]
    vectors = unit(around + rng.normal(scale=0.5, size=around.shape))
    queries = unit(centres[:100] + rng.normal(scale=0.5, size=(100, DIM)))
    return vectors, queries


@pytest.fixture(scope="module")
def approximate(clustered):
    return build_item_index(*clustered, seed=0)


def test_a_small_catalogue_is_searched_exactly():
    vectors = item_vectors()
    index, card = build_item_index(vectors, vectors[:3], seed=0)
    assert (card.factory, card.nprobe, index.nprobe) == ("Flat", None, None)
    for query in vectors:
        best = np.sort(vectors @ query)[::-1][:10]
        np.testing.assert_allclose(vectors[index.search(query, 10)] @ query, best, atol=1e-6)


def test_a_search_for_more_than_there_is_returns_all():
    index, _ = build_item_index(item_vectors(), item_vectors()[:1], seed=0)
    assert sorted(index.search(item_vectors()[0], 100)) == list(range(40))


@pytest.mark.parametrize(
    ("items", "lists"), [(50_001, 1024), (100_000, 1024), (1_000_000, 4096)]
)
def test_lists_grow_with_the_root_of_the_catalogue(items, lists):
    assert list_count(items) == lists


def test_a_large_catalogue_is_searched_approximately_and_well(clustered, approximate):
    _, card = approximate
    assert len(clustered[0]) > FLAT_LIMIT
    assert card.factory == f"IVF{list_count(CLUSTERED_COUNT)},SQ8"
    assert min(card.recall[100], card.recall[200]) >= 0.95


def test_the_card_tells_the_recall_that_brute_force_measures(clustered, approximate):
    (vectors, queries), (index, card) = clustered, approximate
    shares = []
    for query in queries:
        rows = index.search(query, 100 + 16 + 25)
        kept = rows[best_rows(rows, exact_scores(vectors, rows, query), 100)]
        shares.append(np.isin(np.argsort(-(vectors @ query))[:100], kept).mean())
    assert np.mean(shares) == pytest.approx(card.recall[100], abs=1e-3)


def test_an_approximate_index_keeps_its_effort_on_disk(clustered, approximate, tmp_path):
    (_, queries), (index, card) = clustered, approximate
    index.save(tmp_path / "items.faiss")
    opened = ItemIndex.open(tmp_path / "items.faiss")
    assert opened.nprobe == index.nprobe == card.nprobe
    assert (opened.count, opened.dim) == (CLUSTERED_COUNT, DIM)
    assert (opened.search(queries[0], 50) == index.search(queries[0], 50)).all()


def test_an_exact_index_answers_alike_once_opened_from_disk(tmp_path):
    vectors = item_vectors()
    index, _ = build_item_index(vectors, vectors[:1], seed=0)
    index.save(tmp_path / "items.faiss")
    opened = ItemIndex.open(tmp_path / "items.faiss")
    assert opened.nprobe is None
    assert (opened.search(vectors[7], 40) == index.search(vectors[7], 40)).all()


def test_the_best_are_ordered_by_score_then_by_row():
    rows = np.array([9, 3, 5, 1], dtype=np.int32)
    scores = np.array([0.5, 0.7, 0.7, 0.5], dtype=np.float32)
    assert rows[best_rows(rows, scores, 3)].tolist() == [3, 5, 1]
    assert rows[best_rows(rows, scores, 9)].tolist() == [3, 5, 1, 9]


@pytest.mark.parametrize("share", [0.5, 0.15])
@pytest.mark.parametrize("kind", ["at random", "whole clumps"])
def test_an_index_narrowed_to_some_rows_finds_the_best_of_them(
    clustered, approximate, share, kind
):
    (vectors, queries), (index, _) = clustered, approximate
    drawn = np.random.default_rng(1).random(CLUSTERED_COUNT if kind == "at random" else CENTRES)
    kept = drawn if kind == "at random" else drawn[np.arange(CLUSTERED_COUNT) % CENTRES]
    rows = np.flatnonzero(kept < share).astype(np.int32)
    narrow = index.narrowed(rows, vectors, index.lists_of_rows())
    assert (narrow.count, narrow.dim) == (len(rows), DIM)
    shares = []
    for query in queries:
        lists = lists_within(index, narrow, 100, LIMITS)
        found = narrow.search(query, 141, lists)
        assert np.isin(found, rows).all()
        best = found[best_rows(found, exact_scores(vectors, found, query), 100)]
        truth = rows[np.argsort(-(vectors[rows] @ query))[:100]]
        shares.append(np.isin(truth, best).mean())
    assert np.mean(shares) >= 0.95


def test_the_lists_of_rows_are_where_a_search_of_one_list_finds_them(clustered, approximate):
    (vectors, _), (index, _) = clustered, approximate
    lists = index.lists_of_rows()
    assert (len(lists), lists.max() < index.list_count) == (CLUSTERED_COUNT, True)
    for row in range(0, CLUSTERED_COUNT, 6_000):
        found = index.search(vectors[row], CLUSTERED_COUNT, nprobe=1)
        assert len(set(lists[found].tolist())) == 1
        assert (lists == lists[found[0]]).sum() == len(found)


def test_only_eligible_rows_are_found_whatever_the_effort(clustered, approximate):
    (_, queries), (index, _) = clustered, approximate
    eligible = RowSet.from_rows(np.arange(0, CLUSTERED_COUNT, 7, np.int32), CLUSTERED_COUNT)
    for lists in (1, 20, index.list_count):
        found = index.search(queries[0], 10_000, lists, eligible)
        assert eligible.contains(found).all()
        assert len(found) == len(set(found.tolist()))
    assert sorted(found.tolist()) == eligible.rows().tolist()
