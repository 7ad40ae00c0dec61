from contextlib import ExitStack

import pytest

from index.errors import EsansError
from index.shelf import Shelf
from service.answering import question_of
from service.company import Company, Waiting
from service.live.live import open_live
from service.schemas.retrieval import RetrieveRequest
from tests.handmade import publish_handmade


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    publish_handmade(folder)
    return open_live(Shelf(folder).current())


def waiting(live, *history, **more):
    asked = RetrieveRequest(history=list(history), **more)
    return Waiting(live, asked, text_count=len(history))


@pytest.fixture
def all_wait():
    """Callers who enter one after the other, and leave when the test ends."""
    with ExitStack() as stack:
        yield lambda company, *ones: [stack.enter_context(company.waiting(one)) for one in ones]


def are_ready(*ones):
    return [one.prepared is not None for one in ones]


def test_who_waits_is_made_ready_with_the_first_as_if_alone(live, all_wait):
    company = Company(most=16, most_texts=100)
    ones = [waiting(live, "item-0", "item-2"), waiting(live, "item-1"), waiting(live, "lost")]
    all_wait(company, *ones)
    company.get_ready(ones[0])
    assert are_ready(*ones) == [True] * 3
    for one in ones:
        alone = live.retriever.find(question_of(one.asked))
        together = live.retriever.finish(one.prepared)
        assert together.item_ids == alone.item_ids
        assert (together.fallback, together.unknown) == (alone.fallback, alone.unknown)


def test_at_most_so_many_are_made_ready_at_once(live, all_wait):
    company = Company(most=2, most_texts=100)
    ones = [waiting(live, "item-0") for _ in range(3)]
    all_wait(company, *ones)
    company.get_ready(ones[0])
    assert are_ready(*ones) == [True, True, False]


def test_long_histories_are_not_made_ready_in_one_go(live, all_wait):
    company = Company(most=16, most_texts=5)
    ones = [waiting(live, "item-0", "item-1", "item-2") for _ in range(2)]
    all_wait(company, *ones)
    company.get_ready(ones[0])
    assert are_ready(*ones) == [True, False]


def test_questions_of_another_bundle_are_left_to_themselves(live, all_wait):
    other = open_live(live.bundle.folder)
    company = Company(most=16, most_texts=100)
    ones = [waiting(live, "item-0"), waiting(other, "item-0"), waiting(live, "item-0")]
    all_wait(company, *ones)
    company.get_ready(ones[0])
    assert are_ready(*ones) == [True, False, False]
    company.get_ready(ones[1])
    assert are_ready(*ones) == [True, True, False]


def test_one_at_fault_spoils_it_for_nobody_else(live, all_wait):
    company = Company(most=16, most_texts=100)
    ones = [
        waiting(live, "item-0"),
        waiting(live, "item-1", filter={"no such attribute": ["x"]}),
        waiting(live, "item-2"),
    ]
    all_wait(company, *ones)
    company.get_ready(ones[0])
    assert are_ready(*ones) == [True, False, False]
    with pytest.raises(EsansError, match="no such attribute"):
        company.get_ready(ones[1])
    company.get_ready(ones[2])
    assert are_ready(*ones) == [True, False, True]


def test_whoever_leaves_is_forgotten(live, all_wait):
    company = Company(most=16, most_texts=100)
    first, gone = waiting(live, "item-0"), waiting(live, "item-1")
    all_wait(company, first)
    with company.waiting(gone):
        pass
    company.get_ready(first)
    assert are_ready(first, gone) == [True, False]
