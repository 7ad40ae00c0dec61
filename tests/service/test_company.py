from contextlib import ExitStack

import pytest

from index.bundle_registry import BundleRegistry
from index.errors import EsansError
from service.answering import give, prepare_users, question_of
from service.company import Company, Waiting
from service.metrics import Metrics
from service.schemas.retrieval import RetrieveRequest
from service.state.bundle_watcher import open_live
from tests.handmade import publish_handmade


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    publish_handmade(folder)
    return open_live(BundleRegistry(folder).current())


def waiting(live, *history, **more):
    asked = RetrieveRequest(history=list(history), **more)
    return Waiting(live, asked, work=len(history))


def company(most=16, most_work=100):
    def answer(live, asked):
        return give(live, prepare_users, asked, None, Metrics())

    return Company(answer, most, most_work)


@pytest.fixture
def all_wait():
    """Callers who enter one after the other, and leave when the test ends."""
    with ExitStack() as stack:

        def enter(others, *ones):
            for one in ones:
                others.enter(one)
                stack.callback(others.leave, one)

        yield enter


def are_answered(*ones):
    return [one.given is not None for one in ones]


def test_who_waits_is_answered_with_the_first_as_if_alone(live, all_wait):
    others = company()
    ones = [waiting(live, "item-0", "item-2"), waiting(live, "item-1"), waiting(live, "lost")]
    all_wait(others, *ones)
    others.answer(ones[0])
    assert are_answered(*ones) == [True] * 3
    for one in ones:
        alone = live.retriever.find(question_of(one.asked))
        together = one.given.answer
        assert together.item_ids == alone.item_ids
        assert (together.fallback, together.unknown) == (alone.fallback, alone.unknown)


def test_at_most_so_many_are_answered_at_once(live, all_wait):
    others = company(most=2)
    ones = [waiting(live, "item-0") for _ in range(3)]
    all_wait(others, *ones)
    others.answer(ones[0])
    assert are_answered(*ones) == [True, True, False]


def test_long_histories_are_not_answered_in_one_go(live, all_wait):
    others = company(most_work=5)
    ones = [waiting(live, "item-0", "item-1", "item-2") for _ in range(2)]
    all_wait(others, *ones)
    others.answer(ones[0])
    assert are_answered(*ones) == [True, False]


def test_questions_of_another_bundle_are_left_to_themselves(live, all_wait):
    other = open_live(live.bundle.folder)
    others = company()
    ones = [waiting(live, "item-0"), waiting(other, "item-0"), waiting(live, "item-0")]
    all_wait(others, *ones)
    others.answer(ones[0])
    assert are_answered(*ones) == [True, False, False]
    others.answer(ones[1])
    assert are_answered(*ones) == [True, True, False]


def test_one_at_fault_spoils_it_for_nobody_else(live, all_wait):
    others = company()
    ones = [
        waiting(live, "item-0"),
        waiting(live, "item-1", filter={"no such attribute": ["x"]}),
        waiting(live, "item-2"),
    ]
    all_wait(others, *ones)
    others.answer(ones[0])
    assert are_answered(*ones) == [True, False, False]
    with pytest.raises(EsansError, match="no such attribute"):
        others.answer(ones[1])
    others.answer(ones[2])
    assert are_answered(*ones) == [True, False, True]


def test_who_was_given_up_takes_no_place_in_a_company(live, all_wait):
    others = company(most=2)
    given_up, second, third = (waiting(live, f"item-{row}") for row in range(3))
    all_wait(others, given_up, second, third)
    others.answer(second)  # its turn has come, so the turn of who stood before it was
    assert are_answered(given_up, second, third) == [False, True, True]


def test_whoever_leaves_is_forgotten(live, all_wait):
    others = company()
    first, gone = waiting(live, "item-0"), waiting(live, "item-1")
    all_wait(others, first)
    others.enter(gone)
    others.leave(gone)
    others.answer(first)
    assert are_answered(first, gone) == [True, False]
