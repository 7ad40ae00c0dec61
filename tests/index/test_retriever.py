import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from index.retriever import Question, Retriever
from tests.handmade import ITEM_COUNT, item_vectors, mean_query

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
def test_an_exact_index_agrees_with_brute_force(
    retriever, history, exclude, count, exclude_seen
):
    answer = retriever.find(
        Question(count, history=history, exclude=exclude, exclude_seen=exclude_seen)
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
    answer = retriever.find(Question(5, history=["item-0", "item-2", "item-4"]))
    assert all(row % 2 == 0 for row in rows_of(answer.item_ids))


def test_a_given_history_replaces_the_stored_one(retriever):
    odd = retriever.find(Question(5, user_id="user-0", history=["item-1", "item-3"]))
    assert odd.item_ids == retriever.find(Question(5, history=["item-1", "item-3"])).item_ids
    assert odd.item_ids != retriever.find(Question(5, user_id="user-0")).item_ids


def test_what_was_seen_long_before_the_encoder_reads_is_still_seen(retriever):
    history = [f"item-{row}" for row in range(30)]  # the encoder reads the last 10
    answer = retriever.find(Question(40, history=history))
    assert set(rows_of(answer.item_ids)) == set(range(30, 40))


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (Question(3, user_id="nobody"), "unknown_user"),
        (Question(3), "empty_history"),
        (Question(3, history=[]), "empty_history"),
        (Question(3, user_id="user-2"), "empty_history"),
        (Question(3, history=["nothing"]), "no_known_items"),
    ],
)
def test_where_there_is_nothing_to_encode_the_popular_items_answer(retriever, question, reason):
    answer = retriever.find(question)
    assert (answer.fallback, answer.scores) == (reason, None)
    assert answer.item_ids == ["item-0", "item-1", "item-2"]


def test_where_all_is_excluded_the_answer_is_empty_and_no_error(retriever):
    everything = [f"item-{row}" for row in range(ITEM_COUNT)]
    assert retriever.find(Question(3, history=everything)).item_ids == []
    assert retriever.find(Question(3, exclude=everything)).item_ids == []
