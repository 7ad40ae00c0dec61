from dataclasses import replace

import numpy as np
import pytest

from index.ann.index import ItemIndex, exact_neighbours
from index.ann.probing import CoarseCentroids, ProbingPolicy, SearchEffort, effort_for, slack
from index.ann.rescore import best_by, best_of_each
from index.ann.tuning import (
    FLAT_LIMIT,
    Benchmark,
    build_item_index,
    fit_policy,
    list_count,
)
from index.bitmap import RowSet
from index.ids import build_id_table
from index.search.query import SearchResult
from index.search.searcher import Searcher, found_rows
from tests.support.synthetic_bundle import item_vectors

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
        found = np.sort(vectors[index.search(query[np.newaxis], 10).rows[0]] @ query)[::-1]
        np.testing.assert_allclose(found, best, atol=1e-6)


def test_a_search_for_more_than_there_is_returns_all():
    index, _ = build_item_index(item_vectors(), item_vectors()[:1], seed=0)
    found = index.search(item_vectors()[:1], 100).rows[0]
    assert sorted(found) == [-1] * 60 + list(range(40))


@pytest.mark.parametrize(("items", "lists"), [(50_001, 1024), (100_000, 1024), (1_000_000, 4096)])
def test_lists_grow_with_the_root_of_the_catalogue(items, lists):
    assert list_count(items) == lists


def test_a_large_catalogue_is_searched_approximately_and_well(clustered, approximate):
    _, card = approximate
    assert len(clustered[0]) > FLAT_LIMIT
    assert card.factory == f"IVF{list_count(CLUSTERED_COUNT)},SQ8"
    assert min(card.recall.values()) >= 0.95


def test_the_card_tells_the_recall_that_brute_force_measures(clustered, approximate):
    (vectors, queries), (index, card) = clustered, approximate
    searcher, items = Searcher(index, vectors), build_id_table([])
    shares = []
    for query in queries:
        result = SearchResult(items, 100, query)
        searcher.search([result])
        shares.append(np.isin(np.argsort(-(vectors @ query))[:100], result.rows).mean())
    assert np.mean(shares) == pytest.approx(card.recall[100], abs=1e-3)


def test_fewer_rows_are_read_than_by_a_fixed_number_of_lists(clustered, approximate):
    (vectors, queries), (index, card) = clustered, approximate
    truth = exact_neighbours(vectors, queries, 100)
    sizes = np.bincount(index.lists_of_rows(), minlength=index.list_count)

    def rows_read(effort):
        lists = index.centroids.probe(queries, effort).lists
        return sizes[lists[lists >= 0]].sum() / len(queries)

    def recall(effort):
        rows = index.search(queries, 100 + slack(100), effort).rows
        found = best_of_each(vectors, queries, rows, [100] * len(queries))
        pairs = zip(truth, found, strict=True)
        return np.mean([np.isin(best, own).mean() for best, (own, _) in pairs])

    assert recall(SearchEffort()) == pytest.approx(card.recall[100])
    fixed = (SearchEffort(np.inf, max_lists=lists) for lists in range(1, 1_024))
    enough = next(effort for effort in fixed if recall(effort) >= card.recall[100])
    assert rows_read(SearchEffort()) < rows_read(enough)


def test_an_approximate_index_keeps_its_effort_on_disk(clustered, approximate, tmp_path):
    (_, queries), (index, card) = clustered, approximate
    index.save(tmp_path / "items.faiss")
    opened = ItemIndex.open(tmp_path / "items.faiss").with_policies(card.policies)
    assert opened.nprobe == index.nprobe == card.nprobe
    assert (opened.count, opened.dim) == (CLUSTERED_COUNT, DIM)
    assert (opened.search(queries, 50).rows == index.search(queries, 50).rows).all()


def test_an_exact_index_answers_alike_once_opened_from_disk(tmp_path):
    vectors = item_vectors()
    index, _ = build_item_index(vectors, vectors[:1], seed=0)
    index.save(tmp_path / "items.faiss")
    opened = ItemIndex.open(tmp_path / "items.faiss")
    assert opened.nprobe is None
    assert (opened.search(vectors, 40).rows == index.search(vectors, 40).rows).all()


def test_the_best_are_ordered_by_score_then_by_row():
    vectors = np.array([[0.5], [-0.7], [0.7], [0.7], [0.0], [-0.0]], dtype=np.float32)
    rows = np.array([[5, 3, 0, 2, 1, 4], [3, -1, 5, 1, -1, -1]], dtype=np.int32)
    queries = np.array([[1.0], [-1.0]], dtype=np.float32)
    first, second = best_of_each(vectors, queries, rows, [5, 9])
    assert first[0].tolist() == [2, 3, 0, 4, 5]
    np.testing.assert_array_equal(first[1], vectors[first[0]][:, 0])
    assert second[0].tolist() == [1, 5, 3]
    np.testing.assert_array_equal(second[1], -vectors[second[0]][:, 0])


def test_a_query_finds_the_same_alone_and_beside_others(clustered, approximate):
    (_, queries), (index, _) = clustered, approximate
    for effort in (SearchEffort(), SearchEffort(3.0), SearchEffort(np.inf, max_lists=70)):
        alone = [index.search(query[np.newaxis], 60, effort).rows[0] for query in queries]
        assert (index.search(queries, 60, effort).rows == np.stack(alone)).all()


def test_of_what_was_fetched_the_best_by_the_index_s_own_scores_are_kept(clustered, approximate):
    (vectors, queries), (index, _) = clustered, approximate
    near = index.search(queries[:3], 200)
    exact = np.einsum("nrd,nd->nr", vectors[near.rows], queries[:3])
    np.testing.assert_allclose(near.scores, exact, atol=0.02)  # eight bits a number
    counts = [5, 200, 40]
    kept = best_by(*near, counts)
    for own, rows, scores, count in zip(kept, *near, counts, strict=True):
        assert own[:count].tolist() == rows[np.lexsort((rows, -scores))][:count].tolist()
        assert (own[count:] == -1).all()


def test_what_was_dropped_is_none_of_the_best():
    scores = np.array([[0.5, -0.25, 0.5, 0.75], [0.1, 0.2, 0.3, np.nan]], dtype=np.float32)
    rows = np.array([[9, 4, 2, -1], [-1, -1, -1, 7]], dtype=np.int32)
    assert best_by(rows, scores, [3, 3]).tolist() == [[2, 9, 4], [7, -1, -1]]
    assert best_by(rows, scores, [1, 2]).tolist() == [[2, -1], [7, -1]]


def test_a_query_between_many_centres_visits_more_lists_than_one_near_a_single_one():
    angles = np.linspace(0, np.pi, 100)
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    centres = np.concatenate([np.repeat([[0.0, -1.0]], 100, axis=0), rows]).astype(np.float32)
    near = CoarseCentroids.build(
        centres, np.ones(200, dtype=np.int64), [ProbingPolicy(1.0, 0.7, 4.0)]
    )
    queries = np.array([[0.0, 1.0], [-1.0, 0.0]], dtype=np.float32)  # amid them, at their end
    amid, at_the_end = (near.probe(queries, SearchEffort()).lists >= 0).sum(axis=1)
    assert amid > at_the_end > 1
    few = near.probe(queries, SearchEffort(max_lists=5))
    assert (few.lists >= 0).sum(axis=1).tolist() == [5, 5]
    assert (np.diff(few.scores, axis=1) <= 0).all()


def test_lists_are_visited_where_what_is_sought_is_dense_enough():
    rng = np.random.default_rng(2)
    vectors, sizes = unit(rng.normal(size=(300, 8))), rng.integers(0, 50, 300)
    queries = unit(rng.normal(size=(20, 8)))
    centres = CoarseCentroids.build(vectors, sizes, [ProbingPolicy(1.0, 0.5, 6.0)])
    visits = centres.probe(queries, SearchEffort())
    for query, lists in zip(queries.astype(np.float64), visits.lists, strict=True):
        density = np.exp(6 * (vectors @ query))
        mean = np.average(density, weights=sizes)  # over all rows
        is_dense = density >= np.exp(0.5) * mean
        assert sorted(lists[lists >= 0]) == np.flatnonzero(is_dense).tolist()
        assert 0 < is_dense.sum() < 150


def test_tuning_begins_somewhere_though_what_is_sought_lies_opposite():
    towards = np.where(np.arange(400) < 60, 1.0, -1.0)[:, np.newaxis]
    noise = np.random.default_rng(4).normal(scale=0.05, size=(400, 4))
    vectors = unit(towards * np.array([1.0, 0, 0, 0]) + noise)
    index, queries = ItemIndex.trained(vectors, "IVF4,SQ8", seed=0), vectors[:20]
    sought = Benchmark(vectors, queries, exact_neighbours(vectors, queries, 100))
    look, _ = fit_policy(index, index.lists_of_rows(), sought)
    assert look.depth == 1.0
    assert -40.1 < look.log_threshold < 0


def test_a_query_that_finds_no_list_dense_enough_visits_the_nearest():
    vectors, sizes = np.eye(4, dtype=np.float32), np.full(4, 10)
    centres = CoarseCentroids.build(vectors, sizes, [ProbingPolicy(1.0, 9.0, 2.0)])
    query = np.array([[0.1, 0.2, 0.9, 0.3]], dtype=np.float32)
    assert centres.probe(query, SearchEffort()).lists.tolist() == [[2]]


def test_a_choice_among_some_lists_goes_by_their_own_rows():
    vectors, sizes = np.eye(4, dtype=np.float32), np.array([10, 10, 10, 1_000])
    query = np.array([[0.6, 0.5, 0.1, 0.0]], dtype=np.float32)
    whole = CoarseCentroids.build(vectors, sizes, [ProbingPolicy(1.0, 0.3, 2.0)])
    assert whole.probe(query, SearchEffort()).lists.tolist() == [
        [0, 1]
    ]  # much denser than in list 3
    some = whole.filtered(np.array([10, 10, 0, 0])).among(np.array([0, 1]))
    some = replace(some, filter_depth=1.0)
    assert some.probe(query, SearchEffort()).lists.tolist() == [
        [0]
    ]  # as dense in the one as the other


@pytest.mark.parametrize(
    ("kept", "depth"), [([5, 5, 5, 500], 1.0), ([10, 10, 5, 1_000], 1.0), ([0, 0, 10, 0], 2.0)]
)
def test_a_filter_that_keeps_whole_lists_is_searched_deeper(kept, depth):
    vectors, sizes = np.eye(4, dtype=np.float32), np.array([10, 10, 10, 1_000])
    whole = CoarseCentroids.build(vectors, sizes, [ProbingPolicy(1.0, 0.3, 2.0)])
    assert whole.filtered(np.array(kept)).filter_depth == pytest.approx(depth, abs=0.01)


def test_a_query_that_is_no_number_finds_something_and_spoils_nothing(clustered, approximate):
    (vectors, queries), (index, _) = clustered, approximate
    asked = np.stack([queries[0], np.full(DIM, np.nan, np.float32), queries[1]])
    found = index.search(asked, 100).rows
    assert (found[[0, 2]] == index.search(asked[[0, 2]], 100).rows).all()
    best = best_of_each(vectors, asked, np.arange(3 * 5, dtype=np.int32).reshape(3, 5), [5] * 3)
    assert sorted(best[1][0]) == list(range(5, 10))
    assert np.isneginf(best[1][1]).all()


def test_a_query_looks_further_the_deeper_it_asks(approximate, clustered):
    (_, queries), (index, _) = clustered, approximate
    policies = [
        ProbingPolicy(1.0, 0.6, 9.0),
        ProbingPolicy(2.0, 0.5, 8.0),
        ProbingPolicy(10.0, 0.2, 6.0),
    ]
    centres = CoarseCentroids.build(
        np.eye(4, dtype=np.float32), np.ones(4, dtype=np.int64), policies
    )
    told = [centres.policy_at(depth)[1:] for depth in (0.5, 1, 2**0.5, 2, 20**0.5, 10, 50)]
    np.testing.assert_allclose(
        told,
        [[0.6, 9], [0.6, 9], [0.55, 8.5], [0.5, 8], [0.35, 7], [0.2, 6], [0.2 - np.log(5), 6]],
    )
    counts = [
        (index.centroids.probe(queries, SearchEffort(depth)).lists >= 0).sum(axis=1)
        for depth in (1, 2, 3, np.inf)
    ]
    assert (np.diff(counts, axis=0) >= 0).all()
    assert index.nprobe == round(counts[0].mean())
    assert (counts[-1] == index.list_count).all()


@pytest.mark.parametrize("share", [0.5, 0.15])
@pytest.mark.parametrize("kind", ["at random", "whole clumps"])
def test_an_index_narrowed_to_some_rows_finds_the_best_of_them(clustered, approximate, share, kind):
    (vectors, queries), (index, _) = clustered, approximate
    drawn = np.random.default_rng(1).random(CLUSTERED_COUNT if kind == "at random" else CENTRES)
    kept = drawn if kind == "at random" else drawn[np.arange(CLUSTERED_COUNT) % CENTRES]
    rows = np.flatnonzero(kept < share).astype(np.int32)
    narrow = index.narrowed(rows, vectors, index.lists_of_rows())
    assert (narrow.count, narrow.dim) == (len(rows), DIM)
    shares = []
    for query in queries:
        effort = effort_for(100, len(rows) / CLUSTERED_COUNT, narrow.rows_per_list)
        found = narrow.search(query[np.newaxis], 100 + slack(100), effort).rows
        assert np.isin(found[found >= 0], rows).all()
        best = best_of_each(vectors, query[np.newaxis], found, [100])[0][0]
        truth = rows[np.argsort(-(vectors[rows] @ query))[:100]]
        shares.append(np.isin(truth, best).mean())
    assert np.mean(shares) >= 0.95


@pytest.mark.parametrize("kind", ["at random", "whole clumps"])
def test_an_index_weighted_by_most_rows_finds_the_best_of_them(clustered, approximate, kind):
    (vectors, queries), (index, _) = clustered, approximate
    drawn = np.random.default_rng(1).random(CLUSTERED_COUNT if kind == "at random" else CENTRES)
    kept = drawn if kind == "at random" else drawn[np.arange(CLUSTERED_COUNT) % CENTRES]
    rows = np.flatnonzero(kept < 0.8).astype(np.int32)
    weighted = index.reweighted(rows, index.lists_of_rows())
    eligible = RowSet.from_rows(rows, CLUSTERED_COUNT)
    effort = effort_for(100, len(rows) / CLUSTERED_COUNT, weighted.rows_per_list)
    found = weighted.search(queries, 100 + slack(100), effort, eligible).rows
    assert np.isin(found[found >= 0], rows).all()
    best = best_of_each(vectors, queries, found, [100] * len(queries))
    truth = [rows[np.argsort(-(vectors[rows] @ query))[:100]] for query in queries]
    pairs = zip(truth, best, strict=True)
    assert np.mean([np.isin(one, own).mean() for one, (own, _) in pairs]) >= 0.95


def test_the_lists_of_rows_are_where_a_search_of_one_list_finds_them(clustered, approximate):
    (vectors, _), (index, _) = clustered, approximate
    lists = index.lists_of_rows()
    assert (len(lists), lists.max() < index.list_count) == (CLUSTERED_COUNT, True)
    for row in range(0, CLUSTERED_COUNT, 6_000):
        near = index.search(vectors[row : row + 1], CLUSTERED_COUNT, SearchEffort(max_lists=1))
        found = found_rows(near.rows)
        assert len(set(lists[found].tolist())) == 1
        assert (lists == lists[found[0]]).sum() == len(found)


def test_only_eligible_rows_are_found_whatever_the_effort(clustered, approximate):
    (_, queries), (index, _) = clustered, approximate
    eligible = RowSet.from_rows(np.arange(0, CLUSTERED_COUNT, 7, np.int32), CLUSTERED_COUNT)
    for most in (1, 20, index.list_count):
        near = index.search(queries[:1], 10_000, SearchEffort(np.inf, max_lists=most), eligible)
        found = found_rows(near.rows)
        assert eligible.contains(found).all()
        assert len(found) == len(set(found.tolist()))
    assert sorted(found.tolist()) == eligible.rows().tolist()
