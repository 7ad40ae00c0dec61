"""Micro-batching: which waiting work is processed in one call.

Many queries looked up, encoded, searched and written at once cost much less than one by one.
Nobody waits for that: what waits behind the first in the queue is taken along.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

MAX_COST = 5_000  # of one part; a query costs its ids and values looked up, its k, and so on
MAX_JOBS = 64  # in a micro-batch: 10 ms
MAX_BATCH_COST = 2 * MAX_COST

Payload = TypeVar("Payload")
Result = TypeVar("Result")


@dataclass(slots=True)
class Work(Generic[Payload, Result]):
    """What a request wants processed.

    Attributes:
        process: returns a result for each payload.
        parts: each is processed in one call; others have their turns in between.
        key: works with equal keys, of one part each, may share a call; None: never. It must not
            hold what the work is about: a dropped job is to hold nothing.
        cost: of the only part.
    """

    process: Callable[[Sequence[Payload]], Sequence[Result]]
    parts: Sequence[Sequence[Payload]]
    key: int | None = None
    cost: int = 0


class Job(Protocol):
    """What waits in the queue."""

    key: int | None
    cost: int


AnyJob = TypeVar("AnyJob", bound=Job)


def pop_batch(queue: deque[AnyJob]) -> list[AnyJob]:
    """Pop the first job, and those directly behind it that may share its call."""
    batch = [queue.popleft()]
    key, cost = batch[0].key, batch[0].cost
    while key is not None and queue and len(batch) < MAX_JOBS:
        cost += queue[0].cost
        if queue[0].key != key or cost > MAX_BATCH_COST:
            break
        batch.append(queue.popleft())
    return batch


def split(
    payloads: Sequence[Any], costs: Sequence[int], most: int, max_cost: int = MAX_COST
) -> list[Sequence[Any]]:
    """Split the payloads of one request into parts; one that costs more is a part by itself."""
    parts, begin = [], 0
    while begin < len(payloads):
        sums = accumulate(costs[begin : begin + most])
        end = begin + max(1, sum(total <= max_cost for total in sums))
        parts.append(payloads[begin:end])
        begin = end
    return parts
