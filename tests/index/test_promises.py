"""What every answer keeps, against brute force, whichever way the search takes."""

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
from index.search.searcher import drop_excluded
from tests.support.synthetic_bundle import mean_query, publish_handmade, retrieve_one

COUNT, CLOSE = 600, 1e-5
SMALL = Limits(few=20, visited=120, looked_up=40, many_excluded=10)
VALUES = {
    "parity": ["even", "odd", "neither"],
    "hundred": ["0", "1", "7"],
    "tags": [f"tag {tag}" for tag in range(6)],
    "odd": ["true", "false"],
    "mood": ["gay"],
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
QUESTIONS = st.builds(
    Query,
    k=st.integers(1, 700),
    history=st.lists(IDS | st.just("stranger"), max_size=30) | LONG,
    exclude=st.lists(IDS | st.just("stranger"), max_size=30) | LONG,
    exclude_seen=st.booleans(),
    filter=FILTERS,
)
DENIED = st.none() | st.lists(ROWS, max_size=300)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    bundles = tmp_path_factory.mktemp("bundles")
    publish_handmade(bundles, count=COUNT)
    return open_bundle(BundleRegistry(bundles).current())


def poor(bundle, *policies):
    """Its index has many lists, of which it visits one, or few: it must look further."""
    index = ItemIndex.trained(bundle.vectors, "IVF15,SQ8", seed=0)
    index.handle.nprobe = 1
    return replace(bundle, index=index.with_policies(policies))


@pytest.fixture(scope="module")
def retrievers(bundle):
    """An exact index as it is, and searches that must change their way at small numbers."""
    return {
        "exact": Retriever(bundle),
        "exact, small": Retriever(bundle, SMALL),
        "poor": Retriever(poor(bundle)),
        "poor, small": Retriever(poor(bundle), SMALL),
        "poor, by reach": Retriever(poor(bundle, ProbingPolicy(1.0, 1.5, 9.0))),
        "poor, by reach, small": Retriever(poor(bundle, ProbingPolicy(1.0, 1.5, 9.0)), SMALL),
    }


def eligible_rows(question, denied):
    """The rows that may be returned, from the definition."""
    barred = {*question.exclude, *(question.history if question.exclude_seen else ())}
    return [
        row
        for row in range(COUNT)
        if f"item-{row}" not in barred
        and row not in (denied or ())
        and all(HAS[name](row) & set(values) for name, values in question.filter.items())
    ]


def as_set(denied):
    return None if denied is None else RowSet.from_rows(np.array(denied, np.int32), COUNT)


@settings(deadline=None, max_examples=150)
@given(QUESTIONS, DENIED)
def test_as_many_eligible_items_come_as_there_are_each_once_in_order(retrievers, question, denied):
    eligible = eligible_rows(question, denied)
    for retriever in retrievers.values():
        answer = retrieve_one(retriever, question, as_set(denied))
        found = [int(one[5:]) for one in answer.item_ids]
        assert found == answer.rows.tolist()
        assert len(found) == len(set(found)) == min(question.k, len(eligible))
        assert set(found) <= set(eligible)
        if answer.fallback:
            assert found == eligible[: question.k]  # the lower a row, the more popular
            continue
        vectors = retriever.bundle.vectors
        query = mean_query(vectors, [int(one[5:]) for one in question.history if one[4] == "-"])
        np.testing.assert_allclose(answer.scores, vectors[found] @ query, atol=CLOSE)
        order = np.lexsort((answer.rows, -answer.scores))
        assert order.tolist() == list(range(len(found)))


@settings(deadline=None, max_examples=150)
@given(QUESTIONS, DENIED)
def test_an_exact_index_finds_the_best_that_are_eligible(retrievers, question, denied):
    eligible = eligible_rows(question, denied)
    for name in ("exact", "exact, small"):
        answer = retrieve_one(retrievers[name], question, as_set(denied))
        if answer.fallback:
            continue
        vectors = retrievers[name].bundle.vectors
        query = mean_query(vectors, [int(one[5:]) for one in question.history if one[4] == "-"])
        best = np.sort(vectors[eligible] @ query)[::-1][: question.k]
        np.testing.assert_allclose(answer.scores, best, atol=CLOSE)


@settings(deadline=None, max_examples=60)
@given(st.lists(QUESTIONS, min_size=1, max_size=5), DENIED)
def test_a_question_is_answered_alike_alone_together_and_quickly(retrievers, asked, denied):
    for retriever in retrievers.values():
        together = retriever.retrieve(asked, as_set(denied))
        bounded = retriever.retrieve(asked, as_set(denied), is_bounded=True)
        assert all(one.is_complete for one in together)
        for question, *others in zip(asked, together, bounded, strict=True):
            alone = retrieve_one(retriever, question, as_set(denied))
            others.append(retrieve_one(retriever, question, as_set(denied), is_bounded=True))
            for other in [one for one in others if one.is_complete]:
                assert_alike(alone, other, retriever.bundle.vectors)


def assert_alike(one, other, vectors):
    """The same items, but for those whose exact scores are as good as equal."""
    assert (one.fallback, one.unknown) == (other.fallback, other.unknown)
    assert one.unknown_values == other.unknown_values
    if one.scores is None:
        assert one.item_ids == other.item_ids
    else:
        np.testing.assert_allclose(one.scores, other.scores, atol=CLOSE)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(1, 700), FILTERS, st.lists(IDS, max_size=30), DENIED)
def test_similar_items_keep_the_same_promises(retrievers, row, count, wanted, exclude, denied):
    own = f"item-{row}"
    eligible = eligible_rows(Query(count, history=[own], exclude=exclude, filter=wanted), denied)
    for retriever in retrievers.values():
        answer = retrieve_one(
            retriever, Query(count, item_id=own, exclude=exclude, filter=wanted), as_set(denied)
        )
        found = answer.rows.tolist()
        assert len(found) == len(set(found)) == min(count, len(eligible))
        assert set(found) <= set(eligible)
        assert (np.diff(answer.scores) <= 0).all()


def test_a_wide_filter_is_quick_once_it_was_asked_for_at_length(bundle):
    retriever = Retriever(poor(bundle), SMALL)
    question = Query(5, history=["item-0"], filter={"parity": ["odd"]})
    assert not retrieve_one(retriever, question, is_bounded=True).is_complete
    answer = retrieve_one(retriever, question)
    again = retrieve_one(retriever, question, is_bounded=True)
    assert again.is_complete
    assert again.item_ids == answer.item_ids


def test_what_only_a_long_search_would_tell_is_left_to_those_who_have_the_time(bundle):
    retriever = Retriever(poor(bundle), replace(SMALL, visited=40))
    question = Query(590, history=["item-0"])  # most lists are far from it
    assert not retrieve_one(retriever, question, is_bounded=True).is_complete
    assert len(retrieve_one(retriever, question).item_ids) == 590


def test_values_that_no_item_has_are_told(retrievers):
    asked = {"parity": ["odd", "neither"], "mood": ["gay"]}
    for retriever in retrievers.values():
        answer = retrieve_one(retriever, Query(5, history=["item-0"], filter=asked))
        assert answer.unknown_values == {"parity": ["neither"], "mood": ["gay"]}
        assert answer.item_ids == []


def test_an_attribute_that_is_not_known_is_an_error_that_names_the_known(retrievers):
    question = Query(5, filter={"colour": ["red"]})
    with pytest.raises(UnknownAttributeError, match=r"'colour'.* by hundred, mood, odd, parity"):
        retrieve_one(retrievers["exact"], question)


def test_filters_that_are_not_used_are_forgotten_before_memory_runs_out(bundle):
    retriever = Retriever(bundle)
    filters = retriever._filters  # no answer tells how much it keeps
    filters._limit_bytes = 12_000
    tags = [f"tag {tag}" for tag in range(5)]
    for chosen in range(1, 32):
        values = [tag for place, tag in enumerate(tags) if chosen >> place & 1]
        answer = retrieve_one(retriever, Query(700, history=["item-0"], filter={"tags": values}))
        eligible = [row for row in range(1, COUNT) if HAS["tags"](row) & set(values)]
        assert sorted(answer.rows.tolist()) == eligible
        assert filters._kept_bytes <= filters._limit_bytes
    assert 1 < len(filters._kept) < 5


@given(
    st.lists(st.tuples(st.lists(st.integers(-1, 50), max_size=8), st.sets(st.integers(0, 50)))),
    st.integers(0, 2**22),
)
def test_excluded_rows_are_dropped_and_no_others(questions, far):
    """`far` moves some rows away from the others."""
    moved = [[row + far * (row % 3) if row >= 0 else -1 for row in rows] for rows, _ in questions]
    barred = [sorted(row + far * (row % 3) for row in rows) for _, rows in questions]
    most = max((len(rows) for rows in moved), default=0)
    rows = np.array([own + [-1] * (most - len(own)) for own in moved], dtype=np.int32)
    left = rows.reshape(len(questions), most).copy()
    if questions:
        drop_excluded(left, [np.array(own, dtype=np.int32) for own in barred])
    expected = [
        [-1 if row in own else row for row in found]
        for found, own in zip(rows.tolist(), barred, strict=True)
    ]
    assert left.tolist() == expected
