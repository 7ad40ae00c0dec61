from dataclasses import replace

import faiss
import numpy as np
import pytest

from index.ann import index as index_module
from index.ann.index import ItemIndex, all_cores, exact_neighbours
from index.ann.probing import CoarseCentroids, ProbingPolicy, SearchEffort, effort_for, slack
from index.ann.rescore import rank_rows, top_by_score
from index.ann.tuning import FLAT_LIMIT, Benchmark, build_item_index, fit_policy, num_lists
from index.bitmap import RowSet
from index.ids import build_id_table
from index.search.query import SearchResult
from index.search.searcher import Searcher, valid_rows
from tests.support.synthetic_bundle import item_vectors

CLUSTERED_COUNT, DIM, NUM_CLUSTERS = 60_000, 16, 200


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def clustered():
    """60,000 clustered vectors, and queries from the same clusters."""
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(NUM_CLUSTERS, DIM))
    around = centroids[np.arange(CLUSTERED_COUNT) % NUM_CLUSTERS]
    vectors = unit(around + rng.normal(scale=0.5, size=around.shape))
    queries = unit(centroids[:100] + rng.normal(scale=0.5, size=(100, DIM)))
    return vectors, queries


@pytest.fixture(scope="module")
def approximate(clustered):
    return build_item_index(*clustered, seed=0)


def test_build_small_catalogue_is_exact():
    vectors = item_vectors()
    index, report = build_item_index(vectors, vectors[:3], seed=0)
    assert (report.factory, report.nprobe, index.nprobe) == ("Flat", None, None)
    for query in vectors:
        best = np.sort(vectors @ query)[::-1][:10]
        results = np.sort(vectors[index.search(query[np.newaxis], 10).rows[0]] @ query)[::-1]
        np.testing.assert_allclose(results, best, atol=1e-6)


def test_search_count_above_size_returns_all():
    index, _ = build_item_index(item_vectors(), item_vectors()[:1], seed=0)
    results = index.search(item_vectors()[:1], 100).rows[0]
    assert sorted(results) == [-1] * 60 + list(range(40))


@pytest.mark.parametrize(("items", "lists"), [(50_001, 1024), (100_000, 1024), (1_000_000, 4096)])
def test_num_lists_grows_with_sqrt_of_items(items, lists):
    assert num_lists(items) == lists


def test_build_large_catalogue_is_ivf_with_target_recall(clustered, approximate):
    _, report = approximate
    assert len(clustered[0]) > FLAT_LIMIT
    assert report.factory == f"IVF{num_lists(CLUSTERED_COUNT)},SQ8"
    assert min(report.recall.values()) >= 0.95


def test_report_recall_equals_brute_force(clustered, approximate):
    (vectors, queries), (index, report) = clustered, approximate
    searcher, items = Searcher(index, vectors), build_id_table([])
    shares = []
    for query in queries:
        result = SearchResult(items, 100, query)
        searcher.search([result])
        shares.append(np.isin(np.argsort(-(vectors @ query))[:100], result.rows).mean())
    assert np.mean(shares) == pytest.approx(report.recall[100], abs=1e-3)


def test_policies_scan_fewer_rows_than_fixed_nprobe(clustered, approximate):
    (vectors, queries), (index, report) = clustered, approximate
    truth = exact_neighbours(vectors, queries, 100)
    sizes = np.bincount(index.lists_of_rows(), minlength=index.num_lists)

    def rows_read(effort):
        lists = index.centroids.probe(queries, effort).lists
        return sizes[lists[lists >= 0]].sum() / len(queries)

    def recall(effort):
        rows = index.search(queries, 100 + slack(100), effort).rows
        results = rank_rows(vectors, queries, rows, [100] * len(queries))
        pairs = zip(truth, results, strict=True)
        return np.mean([np.isin(best, own).mean() for best, (own, _) in pairs])

    assert recall(SearchEffort()) == pytest.approx(report.recall[100])
    fixed = (SearchEffort(np.inf, max_lists=lists) for lists in range(1, 1_024))
    enough = next(effort for effort in fixed if recall(effort) >= report.recall[100])
    assert rows_read(SearchEffort()) < rows_read(enough)


def test_save_open_ivf_keeps_policies(clustered, approximate, tmp_path):
    (_, queries), (index, report) = clustered, approximate
    index.save(tmp_path / "items.faiss")
    opened = ItemIndex.open(tmp_path / "items.faiss").with_policies(report.policies)
    assert opened.nprobe == index.nprobe == report.nprobe
    assert (opened.num_items, opened.dim) == (CLUSTERED_COUNT, DIM)
    assert (opened.search(queries, 50).rows == index.search(queries, 50).rows).all()


def test_save_open_flat_keeps_results(tmp_path):
    vectors = item_vectors()
    index, _ = build_item_index(vectors, vectors[:1], seed=0)
    index.save(tmp_path / "items.faiss")
    opened = ItemIndex.open(tmp_path / "items.faiss")
    assert opened.nprobe is None
    assert (opened.search(vectors, 40).rows == index.search(vectors, 40).rows).all()


def test_rank_rows_orders_by_score_then_row():
    vectors = np.array([[0.5], [-0.7], [0.7], [0.7], [0.0], [-0.0]], dtype=np.float32)
    rows = np.array([[5, 3, 0, 2, 1, 4], [3, -1, 5, 1, -1, -1]], dtype=np.int32)
    queries = np.array([[1.0], [-1.0]], dtype=np.float32)
    first, second = rank_rows(vectors, queries, rows, [5, 9])
    assert first[0].tolist() == [2, 3, 0, 4, 5]
    np.testing.assert_array_equal(first[1], vectors[first[0]][:, 0])
    assert second[0].tolist() == [1, 5, 3]
    np.testing.assert_array_equal(second[1], -vectors[second[0]][:, 0])


def test_search_does_not_depend_on_batch(clustered, approximate):
    (_, queries), (index, _) = clustered, approximate
    for effort in (SearchEffort(), SearchEffort(3.0), SearchEffort(np.inf, max_lists=70)):
        alone = [index.search(query[np.newaxis], 60, effort).rows[0] for query in queries]
        assert (index.search(queries, 60, effort).rows == np.stack(alone)).all()


def test_top_by_score_keeps_best_index_scores(clustered, approximate):
    (vectors, queries), (index, _) = clustered, approximate
    near = index.search(queries[:3], 200)
    exact = np.einsum("nrd,nd->nr", vectors[near.rows], queries[:3])
    np.testing.assert_allclose(near.scores, exact, atol=0.02)  # 8-bit quantisation
    counts = [5, 200, 40]
    kept = top_by_score(*near, counts)
    for own, rows, scores, count in zip(kept, *near, counts, strict=True):
        assert own[:count].tolist() == rows[np.lexsort((rows, -scores))][:count].tolist()
        assert (own[count:] == -1).all()


def test_top_by_score_ignores_padding():
    scores = np.array([[0.5, -0.25, 0.5, 0.75], [0.1, 0.2, 0.3, np.nan]], dtype=np.float32)
    rows = np.array([[9, 4, 2, -1], [-1, -1, -1, 7]], dtype=np.int32)
    assert top_by_score(rows, scores, [3, 3]).tolist() == [[2, 9, 4], [7, -1, -1]]
    assert top_by_score(rows, scores, [1, 2]).tolist() == [[2, -1], [7, -1]]


def test_probe_between_centroids_probes_more_lists():
    angles = np.linspace(0, np.pi, 100)
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    centroids = np.concatenate([np.repeat([[0.0, -1.0]], 100, axis=0), rows]).astype(np.float32)
    near = CoarseCentroids.build(
        centroids, np.ones(200, dtype=np.int64), [ProbingPolicy(1.0, 0.7, 4.0)]
    )
    queries = np.array(
        [[0.0, 1.0], [-1.0, 0.0]], dtype=np.float32
    )  # between the centroids, at their end
    amid, at_the_end = (near.probe(queries, SearchEffort()).lists >= 0).sum(axis=1)
    assert amid > at_the_end > 1
    few = near.probe(queries, SearchEffort(max_lists=5))
    assert (few.lists >= 0).sum(axis=1).tolist() == [5, 5]
    assert (np.diff(few.scores, axis=1) <= 0).all()


def test_probe_chooses_lists_above_density_threshold():
    rng = np.random.default_rng(2)
    vectors, sizes = unit(rng.normal(size=(300, 8))), rng.integers(0, 50, 300)
    queries = unit(rng.normal(size=(20, 8)))
    centroids = CoarseCentroids.build(vectors, sizes, [ProbingPolicy(1.0, 0.5, 6.0)])
    visits = centroids.probe(queries, SearchEffort())
    for query, lists in zip(queries.astype(np.float64), visits.lists, strict=True):
        density = np.exp(6 * (vectors @ query))
        mean = np.average(density, weights=sizes)  # over all rows
        is_dense = density >= np.exp(0.5) * mean
        assert sorted(lists[lists >= 0]) == np.flatnonzero(is_dense).tolist()
        assert 0 < is_dense.sum() < 150


def test_fit_policy_opposite_results_stays_in_range():
    towards = np.where(np.arange(400) < 60, 1.0, -1.0)[:, np.newaxis]
    noise = np.random.default_rng(4).normal(scale=0.05, size=(400, 4))
    vectors = unit(towards * np.array([1.0, 0, 0, 0]) + noise)
    index, queries = ItemIndex.train(vectors, "IVF4,SQ8", seed=0), vectors[:20]
    sought = Benchmark(vectors, queries, exact_neighbours(vectors, queries, 100))
    policy, _ = fit_policy(index, index.lists_of_rows(), sought)
    assert policy.depth == 1.0
    assert -40.1 < policy.log_threshold < 0


def test_probe_without_dense_list_probes_nearest():
    vectors, sizes = np.eye(4, dtype=np.float32), np.full(4, 10)
    centroids = CoarseCentroids.build(vectors, sizes, [ProbingPolicy(1.0, 9.0, 2.0)])
    query = np.array([[0.1, 0.2, 0.9, 0.3]], dtype=np.float32)
    assert centroids.probe(query, SearchEffort()).lists.tolist() == [[2]]


def test_probe_subset_uses_subset_weights():
    vectors, sizes = np.eye(4, dtype=np.float32), np.array([10, 10, 10, 1_000])
    query = np.array([[0.6, 0.5, 0.1, 0.0]], dtype=np.float32)
    whole = CoarseCentroids.build(vectors, sizes, [ProbingPolicy(1.0, 0.3, 2.0)])
    assert whole.probe(query, SearchEffort()).lists.tolist() == [
        [0, 1]
    ]  # much denser than in list 3
    some = whole.reweight(np.array([10, 10, 0, 0])).select(np.array([0, 1]))
    some = replace(some, filter_depth=1.0)
    assert some.probe(query, SearchEffort()).lists.tolist() == [
        [0]
    ]  # as dense in the one as the other


@pytest.mark.parametrize(
    ("kept", "depth"), [([5, 5, 5, 500], 1.0), ([10, 10, 5, 1_000], 1.0), ([0, 0, 10, 0], 2.0)]
)
def test_reweight_uneven_filter_increases_depth(kept, depth):
    vectors, sizes = np.eye(4, dtype=np.float32), np.array([10, 10, 10, 1_000])
    whole = CoarseCentroids.build(vectors, sizes, [ProbingPolicy(1.0, 0.3, 2.0)])
    assert whole.reweight(np.array(kept)).filter_depth == pytest.approx(depth, abs=0.01)


def test_search_nan_query_does_not_affect_batch(clustered, approximate):
    (vectors, queries), (index, _) = clustered, approximate
    batch = np.stack([queries[0], np.full(DIM, np.nan, np.float32), queries[1]])
    results = index.search(batch, 100).rows
    assert (results[[0, 2]] == index.search(batch[[0, 2]], 100).rows).all()
    best = rank_rows(vectors, batch, np.arange(3 * 5, dtype=np.int32).reshape(3, 5), [5] * 3)
    assert sorted(best[1][0]) == list(range(5, 10))
    assert np.isneginf(best[1][1]).all()


def test_probe_deeper_effort_probes_more_lists(approximate, clustered):
    (_, queries), (index, _) = clustered, approximate
    policies = [
        ProbingPolicy(1.0, 0.6, 9.0),
        ProbingPolicy(2.0, 0.5, 8.0),
        ProbingPolicy(10.0, 0.2, 6.0),
    ]
    centroids = CoarseCentroids.build(
        np.eye(4, dtype=np.float32), np.ones(4, dtype=np.int64), policies
    )
    policies_at_depth = [
        centroids.policy_at(depth)[1:] for depth in (0.5, 1, 2**0.5, 2, 20**0.5, 10, 50)
    ]
    np.testing.assert_allclose(
        policies_at_depth,
        [[0.6, 9], [0.6, 9], [0.55, 8.5], [0.5, 8], [0.35, 7], [0.2, 6], [0.2 - np.log(5), 6]],
    )
    counts = [
        (index.centroids.probe(queries, SearchEffort(depth)).lists >= 0).sum(axis=1)
        for depth in (1, 2, 3, np.inf)
    ]
    assert (np.diff(counts, axis=0) >= 0).all()
    assert index.nprobe == round(counts[0].mean())
    assert (counts[-1] == index.num_lists).all()


def choose_rows(kind, share):
    """A share of the rows, chosen one by one or by whole clusters."""
    is_by_row = kind == "at random"
    values = np.random.default_rng(1).random(CLUSTERED_COUNT if is_by_row else NUM_CLUSTERS)
    per_row = values if is_by_row else values[np.arange(CLUSTERED_COUNT) % NUM_CLUSTERS]
    return np.flatnonzero(per_row < share).astype(np.int32)


@pytest.mark.parametrize("share", [0.5, 0.15])
@pytest.mark.parametrize("kind", ["at random", "whole clusters"])
def test_build_subset_has_target_recall(clustered, approximate, share, kind):
    (vectors, queries), (index, _) = clustered, approximate
    rows = choose_rows(kind, share)
    narrow = index.build_subset(rows, vectors, index.lists_of_rows())
    assert (narrow.num_items, narrow.dim) == (len(rows), DIM)
    shares = []
    for query in queries:
        effort = effort_for(100, len(rows) / CLUSTERED_COUNT, narrow.rows_per_list)
        results = narrow.search(query[np.newaxis], 100 + slack(100), effort).rows
        assert np.isin(results[results >= 0], rows).all()
        best = rank_rows(vectors, query[np.newaxis], results, [100])[0][0]
        truth = rows[np.argsort(-(vectors[rows] @ query))[:100]]
        shares.append(np.isin(truth, best).mean())
    assert np.mean(shares) >= 0.95


@pytest.mark.parametrize("kind", ["at random", "whole clusters"])
def test_reweight_has_target_recall(clustered, approximate, kind):
    (vectors, queries), (index, _) = clustered, approximate
    rows = choose_rows(kind, 0.8)
    weighted = index.reweight(rows, index.lists_of_rows())
    eligible = RowSet.from_rows(rows, CLUSTERED_COUNT)
    effort = effort_for(100, len(rows) / CLUSTERED_COUNT, weighted.rows_per_list)
    results = weighted.search(queries, 100 + slack(100), effort, eligible).rows
    assert np.isin(results[results >= 0], rows).all()
    best = rank_rows(vectors, queries, results, [100] * len(queries))
    truth = [rows[np.argsort(-(vectors[rows] @ query))[:100]] for query in queries]
    pairs = zip(truth, best, strict=True)
    assert np.mean([np.isin(expected, own).mean() for expected, (own, _) in pairs]) >= 0.95


def test_lists_of_rows_match_single_list_search(clustered, approximate):
    (vectors, _), (index, _) = clustered, approximate
    lists = index.lists_of_rows()
    assert (len(lists), lists.max() < index.num_lists) == (CLUSTERED_COUNT, True)
    for row in range(0, CLUSTERED_COUNT, 6_000):
        near = index.search(vectors[row : row + 1], CLUSTERED_COUNT, SearchEffort(max_lists=1))
        results = valid_rows(near.rows)
        assert len(set(lists[results].tolist())) == 1
        assert (lists == lists[results[0]]).sum() == len(results)


def test_search_returns_only_eligible_rows(clustered, approximate):
    (_, queries), (index, _) = clustered, approximate
    eligible = RowSet.from_rows(np.arange(0, CLUSTERED_COUNT, 7, np.int32), CLUSTERED_COUNT)
    for most in (1, 20, index.num_lists):
        near = index.search(queries[:1], 10_000, SearchEffort(np.inf, max_lists=most), eligible)
        results = valid_rows(near.rows)
        assert eligible.contains(results).all()
        assert len(results) == len(set(results.tolist()))
    assert sorted(results.tolist()) == eligible.rows().tolist()


def test_build_on_more_threads_has_equal_results(clustered, monkeypatch):
    before = faiss.omp_get_max_threads()
    built = []
    for threads in (1, 2):
        monkeypatch.setattr(index_module, "NUM_THREADS", threads)
        with all_cores():
            assert faiss.omp_get_max_threads() == threads
        index = ItemIndex.train(clustered[0], "IVF256,SQ8", seed=1)
        built.append(faiss.serialize_index(index.handle).tobytes())
    assert faiss.omp_get_max_threads() == before
    assert built[0] == built[1]


@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_effort_of_queries_searched_together_is_equal(share):
    """The searcher groups queries for up to 100 results; each gets the result that it has alone."""
    efforts = {effort_for(count, share, rows_per_list=40.0) for count in (1, 10, 99, 100)}
    assert len(efforts) == 1
    assert effort_for(200, share, 40.0) not in efforts
