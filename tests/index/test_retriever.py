import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from index.bitmap import RowSet
from index.errors import UnknownItemError
from index.search.query import Query
from index.search.retriever import Retriever
from tests.support.synthetic_bundle import ITEM_COUNT, item_vectors, mean_query, retrieve_one

CLOSE = 1e-5  # scores this near may change places
ROWS = st.integers(0, ITEM_COUNT - 1)
STRANGERS = st.sampled_from(["nobody-knows", "item-40", "item-00", "Item-1", ""])
HISTORIES = st.lists(ROWS.map("item-{}".format) | STRANGERS, max_size=60)


@pytest.fixture(scope="session")
def retriever(tiny_bundle):
    return Retriever(tiny_bundle)


def rows_of(ids):
    names = {f"item-{row}": row for row in range(ITEM_COUNT)}
    return [names[one] for one in ids if one in names]


def brute_force(history_rows, excluded_rows, count):
    """Scores of the best eligible rows, from the definition."""
    scores = item_vectors() @ mean_query(item_vectors(), history_rows)
    eligible = [row for row in range(ITEM_COUNT) if row not in excluded_rows]
    return np.sort(scores[eligible])[::-1][:count]


@settings(deadline=None, max_examples=200)
@given(
    HISTORIES,
    st.lists(ROWS.map("item-{}".format) | STRANGERS),
    st.integers(1, 60),
    st.booleans(),
)
def test_an_exact_index_agrees_with_brute_force(retriever, history, exclude, count, exclude_seen):
    answer = retrieve_one(
        retriever, Query(count, history=history, exclude=exclude, exclude_seen=exclude_seen)
    )

    known = rows_of(history)
    excluded = set(rows_of(exclude)) | (set(known) if exclude_seen else set())
    found = rows_of(answer.item_ids)
    assert len(found) == len(answer.item_ids) == min(count, ITEM_COUNT - len(excluded))
    assert len(set(found)) == len(found)
    assert not excluded & set(found)
    assert answer.unknown == [one for one in history if not rows_of([one])]
    if not known:
        assert answer.fallback == ("no_known_items" if history else "empty_history")
        assert found == [row for row in range(ITEM_COUNT) if row not in excluded][:count]
        return
    assert answer.fallback is None
    best = brute_force(known, excluded, count)
    np.testing.assert_allclose(answer.scores, best, atol=CLOSE)
    own = item_vectors()[found] @ mean_query(item_vectors(), known)
    np.testing.assert_allclose(answer.scores, own, atol=CLOSE)
    assert (np.diff(answer.scores) <= 0).all()


def test_an_even_history_is_answered_with_even_items(retriever):
    answer = retrieve_one(retriever, Query(5, history=["item-0", "item-2", "item-4"]))
    assert all(row % 2 == 0 for row in rows_of(answer.item_ids))


def test_a_given_history_replaces_the_stored_one(retriever):
    odd = retrieve_one(retriever, Query(5, user_id="user-0", history=["item-1", "item-3"]))
    assert odd.item_ids == retrieve_one(retriever, Query(5, history=["item-1", "item-3"])).item_ids
    assert odd.item_ids != retrieve_one(retriever, Query(5, user_id="user-0")).item_ids


def test_what_was_seen_long_before_the_encoder_reads_is_still_seen(retriever):
    history = [f"item-{row}" for row in range(30)]  # the encoder reads the last 10
    answer = retrieve_one(retriever, Query(40, history=history))
    assert set(rows_of(answer.item_ids)) == set(range(30, 40))


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (Query(3, user_id="nobody"), "unknown_user"),
        (Query(3), "empty_history"),
        (Query(3, history=[]), "empty_history"),
        (Query(3, user_id="user-2"), "empty_history"),
        (Query(3, history=["nothing"]), "no_known_items"),
    ],
)
def test_where_there_is_nothing_to_encode_the_popular_items_answer(retriever, question, reason):
    answer = retrieve_one(retriever, question)
    assert (answer.fallback, answer.scores) == (reason, None)
    assert answer.item_ids == ["item-0", "item-1", "item-2"]


def test_what_one_question_does_not_know_is_no_matter_of_the_others(retriever):
    histories = [["nothing"], [], ["item-3", "item-1"], ["item-2", "nothing", "item-9"]]
    together = retriever.encode([Query(3, history=one) for one in histories])
    told = [(one.fallback, one.unknown, one.excluded.tolist()) for one in together]
    assert told == [
        ("no_known_items", ["nothing"], []),
        ("empty_history", [], []),
        (None, [], [3, 1]),
        (None, ["nothing"], [2, 9]),
    ]
    assert retriever.encode([]) == retriever.retrieve([]) == []


def test_where_all_is_excluded_the_answer_is_empty_and_no_error(retriever):
    everything = [f"item-{row}" for row in range(ITEM_COUNT)]
    assert retrieve_one(retriever, Query(3, history=everything)).item_ids == []
    assert retrieve_one(retriever, Query(3, exclude=everything)).item_ids == []


def denying(*rows):
    return RowSet.from_rows(np.array(rows, dtype=np.int32), ITEM_COUNT)


@pytest.mark.parametrize("question", [Query(40, history=["item-1"]), Query(40)])
def test_what_is_denied_never_comes_and_all_else_does(retriever, question):
    found = rows_of(retrieve_one(retriever, question, denying(0, 2, 39)).item_ids)
    seen = {1} if question.history else set()
    assert sorted(found) == sorted(set(range(ITEM_COUNT)) - {0, 2, 39} - seen)


def test_two_lists_in_two_threads_are_never_taken_for_each_other(tiny_bundle):
    """As where a long search began before the list changed: at every step of the bytecode."""
    retriever, question = Retriever(tiny_bundle), Query(40, history=["item-1"])

    def interrupt(frame, event, _):
        if frame.f_code.co_name != "_allowed_by":
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            other = threading.Thread(target=retriever.retrieve, args=([question], denying(4)))
            other.start()
            other.join()
        return interrupt

    before, mine = sys.gettrace(), denying(2)
    sys.settrace(interrupt)
    try:
        found = [rows_of(retrieve_one(retriever, question, mine).item_ids) for _ in range(2)]
    finally:
        sys.settrace(before)
    assert [(2 in rows, 4 in rows) for rows in found] == [(False, True)] * 2


def test_questions_prepared_together_are_answered_as_alone(retriever):
    questions = [
        Query(5, history=["item-0", "item-2"]),
        Query(7, user_id="nobody"),
        Query(40, history=[f"item-{row}" for row in range(12)], exclude=["item-20"]),
        Query(3, history=["lost"]),
        Query(9, user_id="user-1"),
    ]
    together = retriever.retrieve(questions)
    for question, answer in zip(questions, together, strict=True):
        alone = retrieve_one(retriever, question)
        assert (answer.item_ids, answer.fallback) == (alone.item_ids, alone.fallback)
        assert (answer.scores is None) == (alone.scores is None)
        if alone.scores is not None:
            np.testing.assert_allclose(answer.scores, alone.scores, atol=CLOSE)


def test_items_like_an_even_one_are_even_and_not_itself(retriever):
    answer = retrieve_one(retriever, Query(10, item_id="item-4", exclude=["item-6"]))
    found = rows_of(answer.item_ids)
    assert len(found) == 10
    assert all(row % 2 == 0 for row in found)
    assert not {4, 6} & set(found)
    own = item_vectors()[found] @ item_vectors()[4]
    np.testing.assert_allclose(answer.scores, own, atol=CLOSE)


def test_an_item_that_is_not_held_is_like_none(retriever):
    with pytest.raises(UnknownItemError, match="item 'lost': bundle"):
        retrieve_one(retriever, Query(10, item_id="lost"))
