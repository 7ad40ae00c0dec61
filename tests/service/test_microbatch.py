import asyncio
from collections import deque
from types import SimpleNamespace

import pytest
from starlette.requests import Request

from index.bundle.registry import BundleRegistry
from service.bundle_watcher import open_served_bundle
from service.metrics import Metrics
from service.request_queue import MAX_BATCH_COST, MAX_JOBS, RequestQueue, pop_batch, split
from service.retrieval_service import RetrievalService, build_query, build_work
from service.schemas.retrieval import RetrieveRequest
from tests.support.synthetic_bundle import publish_handmade, retrieve_single


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    publish_handmade(folder)
    return open_served_bundle(BundleRegistry(folder).current())


def make_jobs(*costs, key="alike"):
    return [SimpleNamespace(key=key, cost=cost) for cost in costs]


def pop_batch_sizes(*jobs):
    """Return the sizes of the micro-batches popped until the queue is empty."""
    queue, sizes = deque(jobs), []
    while queue:
        sizes.append(len(pop_batch(queue)))
    return sizes


def test_pop_batch_takes_waiting_jobs_in_order():
    jobs = make_jobs(1, 1, 1)
    queue = deque(jobs)
    assert pop_batch(queue) == jobs
    assert not queue


def test_pop_batch_is_limited_by_max_jobs():
    assert pop_batch_sizes(*make_jobs(*[1] * (2 * MAX_JOBS + 3))) == [MAX_JOBS, MAX_JOBS, 3]


def test_pop_batch_is_limited_by_cost():
    half = MAX_BATCH_COST // 2
    assert pop_batch_sizes(*make_jobs(half, half, 1), *make_jobs(2 * MAX_BATCH_COST)) == [2, 1, 1]


def test_pop_batch_separates_bundles(live):
    bundles = (live, open_served_bundle(live.bundle.folder), live)
    requests = [RetrieveRequest(history=["item-0"])]
    works = [build_work(bundle, None, requests) for bundle in bundles]
    assert pop_batch_sizes(*works) == [1, 1, 1]
    assert pop_batch_sizes(works[0], works[2]) == [2]


def test_pop_batch_without_key_takes_single_job():
    assert pop_batch_sizes(*make_jobs(1, 1, key=None)) == [1, 1]


def test_split_respects_size_and_cost():
    costs = [1, 9, 4, 4, 1, 1, 1, 1, 1]
    assert split(costs, costs, max_size=3, max_cost=9) == [[1], [9], [4, 4, 1], [1, 1, 1], [1]]
    assert split([], [], max_size=3) == []


def test_micro_batch_results_equal_single_results(live, monkeypatch):
    requests = [
        RetrieveRequest(history=["item-0", "item-2"]),
        RetrieveRequest(history=["item-1"]),
        RetrieveRequest(history=["lost"]),
    ]
    results, batches = {}, []

    class Watched(RetrievalService):
        def process(self, live, joined, queries, is_bounded=True):
            batches.append(len(queries))
            pairs = super().process(live, joined, queries, is_bounded)
            results.update(
                (id(body), result) for body, (result, _) in zip(queries, pairs, strict=True)
            )
            return pairs

    async def run_requests():
        queue = RequestQueue(64, 10.0)
        nothing = SimpleNamespace(current=lambda: None, get_denied_rows=lambda _: None)
        service = Watched(queue, None, nothing, nothing, Metrics())
        consumer = asyncio.create_task(queue.consume())
        await asyncio.sleep(0)
        request = Request({"type": "http"})
        await asyncio.gather(*(service.retrieve(request, live, [body]) for body in requests))
        consumer.cancel()

    asyncio.run(run_requests())
    assert batches == [3]
    for body in requests:
        alone, together = retrieve_single(live.retriever, build_query(body)), results[id(body)]
        assert together.item_ids == alone.item_ids
        assert (together.fallback, together.unknown) == (alone.fallback, alone.unknown)
