import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from index.bitmap import RowSet
from index.errors import UnknownItemError
from index.search.query import Query
from index.search.retriever import Retriever
from tests.support.synthetic_bundle import ITEM_COUNT, item_vectors, mean_query, retrieve_single

CLOSE = 1e-5  # items of nearly equal score may swap
ROWS = st.integers(0, ITEM_COUNT - 1)
UNKNOWN_IDS = st.sampled_from(["unknown-item", "item-40", "item-00", "Item-1", ""])
HISTORIES = st.lists(ROWS.map("item-{}".format) | UNKNOWN_IDS, max_size=60)


@pytest.fixture(scope="session")
def retriever(tiny_bundle):
    return Retriever(tiny_bundle)


def rows_of(ids):
    names = {f"item-{row}": row for row in range(ITEM_COUNT)}
    return [names[item_id] for item_id in ids if item_id in names]


def brute_force_scores(history_rows, excluded_rows, count):
    """Return the best scores of eligible rows by brute force."""
    scores = item_vectors() @ mean_query(item_vectors(), history_rows)
    eligible = [row for row in range(ITEM_COUNT) if row not in excluded_rows]
    return np.sort(scores[eligible])[::-1][:count]


@settings(deadline=None, max_examples=200)
@given(
    HISTORIES, st.lists(ROWS.map("item-{}".format) | UNKNOWN_IDS), st.integers(1, 60), st.booleans()
)
def test_exact_search_equals_brute_force(retriever, history, exclude, count, exclude_seen):
    result = retrieve_single(
        retriever, Query(count, history=history, exclude=exclude, exclude_seen=exclude_seen)
    )

    known = rows_of(history)
    excluded = set(rows_of(exclude)) | (set(known) if exclude_seen else set())
    rows = rows_of(result.item_ids)
    assert len(rows) == len(result.item_ids) == min(count, ITEM_COUNT - len(excluded))
    assert len(set(rows)) == len(rows)
    assert not excluded & set(rows)
    assert result.unknown == [item_id for item_id in history if not rows_of([item_id])]
    if not known:
        assert result.fallback == ("no_known_items" if history else "empty_history")
        assert rows == [row for row in range(ITEM_COUNT) if row not in excluded][:count]
        return
    assert result.fallback is None
    best = brute_force_scores(known, excluded, count)
    np.testing.assert_allclose(result.scores, best, atol=CLOSE)
    own = item_vectors()[rows] @ mean_query(item_vectors(), known)
    np.testing.assert_allclose(result.scores, own, atol=CLOSE)
    assert (np.diff(result.scores) <= 0).all()


def test_retrieve_even_history_returns_even_items(retriever):
    result = retrieve_single(retriever, Query(5, history=["item-0", "item-2", "item-4"]))
    assert all(row % 2 == 0 for row in rows_of(result.item_ids))


def test_retrieve_history_overrides_stored_history(retriever):
    odd = retrieve_single(retriever, Query(5, user_id="user-0", history=["item-1", "item-3"]))
    assert (
        odd.item_ids == retrieve_single(retriever, Query(5, history=["item-1", "item-3"])).item_ids
    )
    assert odd.item_ids != retrieve_single(retriever, Query(5, user_id="user-0")).item_ids


def test_retrieve_excludes_seen_items_beyond_max_length(retriever):
    history = [f"item-{row}" for row in range(30)]  # the encoder reads the last 10
    result = retrieve_single(retriever, Query(40, history=history))
    assert set(rows_of(result.item_ids)) == set(range(30, 40))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (Query(3, user_id="unknown-user"), "unknown_user"),
        (Query(3), "empty_history"),
        (Query(3, history=[]), "empty_history"),
        (Query(3, user_id="user-2"), "empty_history"),
        (Query(3, history=["nothing"]), "no_known_items"),
    ],
)
def test_retrieve_without_usable_history_returns_popular(retriever, query, reason):
    result = retrieve_single(retriever, query)
    assert (result.fallback, result.scores) == (reason, None)
    assert result.item_ids == ["item-0", "item-1", "item-2"]


def test_encode_unknown_ids_do_not_affect_other_queries(retriever):
    histories = [["nothing"], [], ["item-3", "item-1"], ["item-2", "nothing", "item-9"]]
    together = retriever.encode([Query(3, history=history) for history in histories])
    encoded = [(result.fallback, result.unknown, result.excluded.tolist()) for result in together]
    assert encoded == [
        ("no_known_items", ["nothing"], []),
        ("empty_history", [], []),
        (None, [], [3, 1]),
        (None, ["nothing"], [2, 9]),
    ]
    assert retriever.encode([]) == retriever.retrieve([]) == []


def test_retrieve_everything_excluded_returns_nothing(retriever):
    everything = [f"item-{row}" for row in range(ITEM_COUNT)]
    assert retrieve_single(retriever, Query(3, history=everything)).item_ids == []
    assert retrieve_single(retriever, Query(3, exclude=everything)).item_ids == []


def denying(*rows):
    return RowSet.from_rows(np.array(rows, dtype=np.int32), ITEM_COUNT)


@pytest.mark.parametrize("query", [Query(40, history=["item-1"]), Query(40)])
def test_retrieve_excludes_only_denied_items(retriever, query):
    rows = rows_of(retrieve_single(retriever, query, denying(0, 2, 39)).item_ids)
    seen = {1} if query.history else set()
    assert sorted(rows) == sorted(set(range(ITEM_COUNT)) - {0, 2, 39} - seen)


def test_retrieve_concurrent_denylists_do_not_mix(tiny_bundle):
    """Change the denylist in another thread at every bytecode instruction."""
    retriever, query = Retriever(tiny_bundle), Query(40, history=["item-1"])

    def interrupt(frame, event, _):
        if frame.f_code.co_name != "_allowed_by":
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            other = threading.Thread(target=retriever.retrieve, args=([query], denying(4)))
            other.start()
            other.join()
        return interrupt

    before, mine = sys.gettrace(), denying(2)
    sys.settrace(interrupt)
    try:
        results = [rows_of(retrieve_single(retriever, query, mine).item_ids) for _ in range(2)]
    finally:
        sys.settrace(before)
    assert [(2 in rows, 4 in rows) for rows in results] == [(False, True)] * 2


def test_retrieve_batch_equals_single_queries(retriever):
    queries = [
        Query(5, history=["item-0", "item-2"]),
        Query(7, user_id="unknown-user"),
        Query(40, history=[f"item-{row}" for row in range(12)], exclude=["item-20"]),
        Query(3, history=["lost"]),
        Query(9, user_id="user-1"),
    ]
    together = retriever.retrieve(queries)
    for query, result in zip(queries, together, strict=True):
        alone = retrieve_single(retriever, query)
        assert (result.item_ids, result.fallback) == (alone.item_ids, alone.fallback)
        assert (result.scores is None) == (alone.scores is None)
        if alone.scores is not None:
            np.testing.assert_allclose(result.scores, alone.scores, atol=CLOSE)


def test_retrieve_similar_to_even_item_returns_even_items(retriever):
    result = retrieve_single(retriever, Query(10, item_id="item-4", exclude=["item-6"]))
    rows = rows_of(result.item_ids)
    assert len(rows) == 10
    assert all(row % 2 == 0 for row in rows)
    assert not {4, 6} & set(rows)
    own = item_vectors()[rows] @ item_vectors()[4]
    np.testing.assert_allclose(result.scores, own, atol=CLOSE)


def test_retrieve_similar_to_unknown_item_raises(retriever):
    with pytest.raises(UnknownItemError, match="item 'lost': not in bundle"):
        retrieve_single(retriever, Query(10, item_id="lost"))
