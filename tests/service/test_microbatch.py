import asyncio
from collections import deque
from types import SimpleNamespace

import pytest
from starlette.requests import Request

from index.bundle.registry import BundleRegistry
from service.bundle_watcher import open_served_bundle
from service.metrics import Metrics
from service.request_queue import MAX_BATCH_COST, MAX_JOBS, RequestQueue, pop_batch, split
from service.retrieval_service import RetrievalService, query_of, work_of
from service.schemas.retrieval import RetrieveRequest
from tests.support.synthetic_bundle import publish_handmade, retrieve_single


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    publish_handmade(folder)
    return open_served_bundle(BundleRegistry(folder).current())


def waiting(*costs, key="alike"):
    return [SimpleNamespace(key=key, cost=cost) for cost in costs]


def batches_of(*jobs):
    """The sizes of the micro-batches that are popped one after the other."""
    queue, sizes = deque(jobs), []
    while queue:
        sizes.append(len(pop_batch(queue)))
    return sizes


def test_who_waits_is_taken_along_in_order():
    jobs = waiting(1, 1, 1)
    queue = deque(jobs)
    assert pop_batch(queue) == jobs
    assert not queue


def test_at_most_so_many_are_answered_at_once():
    assert batches_of(*waiting(*[1] * (2 * MAX_JOBS + 3))) == [MAX_JOBS, MAX_JOBS, 3]


def test_long_histories_are_not_answered_in_one_go():
    half = MAX_BATCH_COST // 2
    assert batches_of(*waiting(half, half, 1), *waiting(2 * MAX_BATCH_COST)) == [2, 1, 1]


def test_questions_of_another_bundle_are_left_to_themselves(live):
    bundles = (live, open_served_bundle(live.bundle.folder), live)
    asked = [RetrieveRequest(history=["item-0"])]
    works = [work_of(bundle, None, asked) for bundle in bundles]
    assert batches_of(*works) == [1, 1, 1]
    assert batches_of(works[0], works[2]) == [2]


def test_work_without_a_key_is_processed_alone():
    assert batches_of(*waiting(1, 1, key=None)) == [1, 1]


def test_parts_keep_to_both_bounds_and_what_costs_more_is_by_itself():
    costs = [1, 9, 4, 4, 1, 1, 1, 1, 1]
    assert split(costs, costs, most=3, max_cost=9) == [[1], [9], [4, 4, 1], [1, 1, 1], [1]]
    assert split([], [], most=3) == []


def test_who_waits_is_answered_with_the_first_as_if_alone(live, monkeypatch):
    asked = [
        RetrieveRequest(history=["item-0", "item-2"]),
        RetrieveRequest(history=["item-1"]),
        RetrieveRequest(history=["lost"]),
    ]
    found, batches = {}, []

    class Watched(RetrievalService):
        def process(self, live, joined, part, is_bounded=True):
            batches.append(len(part))
            pairs = super().process(live, joined, part, is_bounded)
            found.update((id(one), result) for one, (result, _) in zip(part, pairs, strict=True))
            return pairs

    async def answered():
        queue = RequestQueue(64, 10.0)
        nothing = SimpleNamespace(current=lambda: None, get_denied_rows=lambda _: None)
        service = Watched(queue, None, nothing, nothing, Metrics())
        consumer = asyncio.create_task(queue.consume())
        await asyncio.sleep(0)
        request = Request({"type": "http"})
        await asyncio.gather(*(service.retrieve(request, live, [one]) for one in asked))
        consumer.cancel()

    asyncio.run(answered())
    assert batches == [3]
    for one in asked:
        alone, together = retrieve_single(live.retriever, query_of(one)), found[id(one)]
        assert together.item_ids == alone.item_ids
        assert (together.fallback, together.unknown) == (alone.fallback, alone.unknown)
