"""Search guarantees against brute force, for every search method."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from index.ann.index import ItemIndex
from index.ann.probing import Limits, ProbingPolicy
from index.bitmap import RowSet
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.errors import UnknownAttributeError
from index.search.query import Query
from index.search.retriever import Retriever
from index.search.searcher import mask_excluded
from tests.support.synthetic_bundle import mean_query, publish_handmade, retrieve_single

COUNT, CLOSE = 600, 1e-5
SMALL = Limits(max_scanned_rows=20, max_probed_rows=120, max_posting_rows=40, max_dropped_rows=10)
VALUES = {
    "parity": ["even", "odd", "neither"],
    "hundred": ["0", "1", "7"],
    "tags": [f"tag {tag}" for tag in range(6)],
    "odd": ["true", "false"],
    "mood": ["cheerful"],
}
HAS = {
    "parity": lambda row: {["even", "odd"][row % 2]},
    "hundred": lambda row: {"1" if row >= 100 else "0"},
    "tags": lambda row: {f"tag {row % 3}", f"tag {row % 5}"} if row != 3 else set(),
    "odd": lambda row: {"true"} if row % 2 else set(),
    "mood": lambda _: set(),
}
ROWS = st.integers(0, COUNT - 1)
IDS = ROWS.map("item-{}".format)
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(st.sampled_from(values), min_size=1, max_size=3)
        for name, values in VALUES.items()
    },
)
LONG = st.integers(0, COUNT).map(lambda count: [f"item-{row}" for row in range(count)])
QUERIES = st.builds(
    Query,
    k=st.integers(1, 700),
    history=st.lists(IDS | st.just("unknown"), max_size=30) | LONG,
    exclude=st.lists(IDS | st.just("unknown"), max_size=30) | LONG,
    exclude_seen=st.booleans(),
    filter=FILTERS,
)
DENIED = st.none() | st.lists(ROWS, max_size=300)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    bundles = tmp_path_factory.mktemp("bundles")
    publish_handmade(bundles, count=COUNT)
    return open_bundle(BundleRegistry(bundles).current())


def with_ivf_index(bundle, *policies):
    """Replace the index by one that probes one or few of many lists: it must search deeper."""
    index = ItemIndex.train(bundle.vectors, "IVF15,SQ8", seed=0)
    index.handle.nprobe = 1
    return replace(bundle, index=index.with_policies(policies))


@pytest.fixture(scope="module")
def retrievers(bundle):
    """Retrievers with an exact and an IVF index, with default and with small limits."""
    return {
        "exact": Retriever(bundle),
        "exact, small": Retriever(bundle, SMALL),
        "ivf": Retriever(with_ivf_index(bundle)),
        "ivf, small": Retriever(with_ivf_index(bundle), SMALL),
        "ivf, with policy": Retriever(with_ivf_index(bundle, ProbingPolicy(1.0, 1.5, 9.0))),
        "ivf, with policy, small": Retriever(
            with_ivf_index(bundle, ProbingPolicy(1.0, 1.5, 9.0)), SMALL
        ),
    }


def eligible_rows(query, denied):
    """The rows that may be returned, from the definition."""
    excluded = {*query.exclude, *(query.history if query.exclude_seen else ())}
    return [
        row
        for row in range(COUNT)
        if f"item-{row}" not in excluded
        and row not in (denied or ())
        and all(HAS[name](row) & set(values) for name, values in query.filter.items())
    ]


def known_rows(query):
    """The rows of the known items of a query's history."""
    return [int(item_id[5:]) for item_id in query.history if item_id[4] == "-"]


def as_set(denied):
    return None if denied is None else RowSet.from_rows(np.array(denied, np.int32), COUNT)


@settings(deadline=None, max_examples=150)
@given(QUERIES, DENIED)
def test_search_returns_all_or_k_eligible_items_in_order(retrievers, query, denied):
    eligible = eligible_rows(query, denied)
    for retriever in retrievers.values():
        result = retrieve_single(retriever, query, as_set(denied))
        rows = [int(item_id[5:]) for item_id in result.item_ids]
        assert rows == result.rows.tolist()
        assert len(rows) == len(set(rows)) == min(query.k, len(eligible))
        assert set(rows) <= set(eligible)
        if result.fallback:
            assert rows == eligible[: query.k]  # lower rows are more popular
            continue
        vectors = retriever.bundle.vectors
        query_vector = mean_query(vectors, known_rows(query))
        np.testing.assert_allclose(result.scores, vectors[rows] @ query_vector, atol=CLOSE)
        order = np.lexsort((result.rows, -result.scores))
        assert order.tolist() == list(range(len(rows)))


@settings(deadline=None, max_examples=150)
@given(QUERIES, DENIED)
def test_exact_search_returns_best_eligible_items(retrievers, query, denied):
    eligible = eligible_rows(query, denied)
    for name in ("exact", "exact, small"):
        result = retrieve_single(retrievers[name], query, as_set(denied))
        if result.fallback:
            continue
        vectors = retrievers[name].bundle.vectors
        query_vector = mean_query(vectors, known_rows(query))
        best = np.sort(vectors[eligible] @ query_vector)[::-1][: query.k]
        np.testing.assert_allclose(result.scores, best, atol=CLOSE)


@settings(deadline=None, max_examples=60)
@given(st.lists(QUERIES, min_size=1, max_size=5), DENIED)
def test_search_alone_batched_and_bounded_has_same_result(retrievers, queries, denied):
    for retriever in retrievers.values():
        together = retriever.retrieve(queries, as_set(denied))
        bounded = retriever.retrieve(queries, as_set(denied), is_bounded=True)
        assert all(result.is_complete for result in together)
        for query, *others in zip(queries, together, bounded, strict=True):
            alone = retrieve_single(retriever, query, as_set(denied))
            others.append(retrieve_single(retriever, query, as_set(denied), is_bounded=True))
            for other in [result for result in others if result.is_complete]:
                assert_alike(alone, other, retriever.bundle.vectors)


def assert_alike(result, other, vectors):
    """The same items, except for those of nearly equal score."""
    assert (result.fallback, result.unknown) == (other.fallback, other.unknown)
    assert result.unknown_values == other.unknown_values
    if result.scores is None:
        assert result.item_ids == other.item_ids
    else:
        np.testing.assert_allclose(result.scores, other.scores, atol=CLOSE)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(1, 700), FILTERS, st.lists(IDS, max_size=30), DENIED)
def test_similar_items_obey_search_guarantees(retrievers, row, count, filters, exclude, denied):
    own = f"item-{row}"
    eligible = eligible_rows(Query(count, history=[own], exclude=exclude, filter=filters), denied)
    for retriever in retrievers.values():
        result = retrieve_single(
            retriever, Query(count, item_id=own, exclude=exclude, filter=filters), as_set(denied)
        )
        rows = result.rows.tolist()
        assert len(rows) == len(set(rows)) == min(count, len(eligible))
        assert set(rows) <= set(eligible)
        assert (np.diff(result.scores) <= 0).all()


def test_bounded_search_uses_compiled_filter(bundle):
    retriever = Retriever(with_ivf_index(bundle), SMALL)
    query = Query(5, history=["item-0"], filter={"parity": ["odd"]})
    assert not retrieve_single(retriever, query, is_bounded=True).is_complete
    result = retrieve_single(retriever, query)
    again = retrieve_single(retriever, query, is_bounded=True)
    assert again.is_complete
    assert again.item_ids == result.item_ids


def test_bounded_search_leaves_deep_query_incomplete(bundle):
    retriever = Retriever(with_ivf_index(bundle), replace(SMALL, max_probed_rows=40))
    query = Query(590, history=["item-0"])  # most lists are far from it
    assert not retrieve_single(retriever, query, is_bounded=True).is_complete
    assert len(retrieve_single(retriever, query).item_ids) == 590


def test_filter_value_without_items_is_reported(retrievers):
    filters = {"parity": ["odd", "neither"], "mood": ["cheerful"]}
    for retriever in retrievers.values():
        result = retrieve_single(retriever, Query(5, history=["item-0"], filter=filters))
        assert result.unknown_values == {"parity": ["neither"], "mood": ["cheerful"]}
        assert result.item_ids == []


def test_filter_unknown_attribute_lists_attributes(retrievers):
    query = Query(5, filter={"colour": ["red"]})
    with pytest.raises(UnknownAttributeError, match=r"'colour'.*: hundred, mood, odd, parity"):
        retrieve_single(retrievers["exact"], query)


def test_filter_cache_evicts_least_recently_used(bundle):
    retriever = Retriever(bundle)
    filters = retriever._filters  # no result shows the size of the cache
    filters._limit_bytes = 12_000
    tags = [f"tag {tag}" for tag in range(5)]
    for chosen in range(1, 32):
        values = [tag for position, tag in enumerate(tags) if chosen >> position & 1]
        result = retrieve_single(retriever, Query(700, history=["item-0"], filter={"tags": values}))
        eligible = [row for row in range(1, COUNT) if HAS["tags"](row) & set(values)]
        assert sorted(result.rows.tolist()) == eligible
        assert filters._kept_bytes <= filters._limit_bytes
    assert 1 < len(filters._kept) < 5


@given(
    st.lists(st.tuples(st.lists(st.integers(-1, 50), max_size=8), st.sets(st.integers(0, 50)))),
    st.integers(0, 2**22),
)
def test_mask_excluded_masks_only_excluded_rows(cases, far):
    """`far` moves some rows away from the others."""
    moved = [[row + far * (row % 3) if row >= 0 else -1 for row in rows] for rows, _ in cases]
    excluded = [sorted(row + far * (row % 3) for row in rows) for _, rows in cases]
    most = max((len(rows) for rows in moved), default=0)
    rows = np.array([own + [-1] * (most - len(own)) for own in moved], dtype=np.int32)
    left = rows.reshape(len(cases), most).copy()
    if cases:
        mask_excluded(left, [np.array(own, dtype=np.int32) for own in excluded])
    expected = [
        [-1 if row in own else row for row in query_rows]
        for query_rows, own in zip(rows.tolist(), excluded, strict=True)
    ]
    assert left.tolist() == expected
