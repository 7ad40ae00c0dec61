"""Questions of different callers that wait at the same time, answered together.

Many read, encoded and searched for at once cost much less than one by one. Nobody is kept
waiting for that: the first to have its turn takes along those that stand behind it by then.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.answering import Given
from service.schemas.retrieval import RetrieveRequest
from service.state.bundle_watcher import Live

log = logging.getLogger("service")


@dataclass(eq=False, slots=True)
class Waiting:
    """One caller's question, waiting for its turn.

    work   how many ids and values it looks up, and candidates it wants
    given  what came of it, once it was answered
    """

    live: Live
    asked: RetrieveRequest
    work: int
    given: Given | None = None

    def is_found(self) -> bool:
        """Tell whether it was answered."""
        return self.given is not None


Give = Callable[[Live, Sequence[RetrieveRequest]], Sequence[Given]]


class Company:
    """Those that wait and are not answered, in the order in which they came."""

    def __init__(self, give: Give, most: int, most_work: int) -> None:
        """Answer at most so many at once, who make at most so much work.

        give  answers questions of one bundle
        """
        self._give = give
        self._most = most
        self._most_work = most_work
        self._waiting: deque[Waiting] = deque()

    def enter(self, one: Waiting) -> None:
        """Let a question wait here; whatever becomes of its caller, it must `leave`."""
        self._waiting.append(one)

    def leave(self, one: Waiting) -> None:
        """Let it wait no longer, answered or not."""
        if one.given is None and one in self._waiting:
            self._waiting.remove(one)

    def answer(self, one: Waiting) -> Given:
        """Answer a question, and with it those that came after it.

        Raises what `give` raises for this question; the others then wait on.
        """
        if one.given is not None:
            return one.given
        while self._waiting.popleft() is not one:
            pass  # who stood before it was given up, and is not gone yet
        chosen = self._chosen_with(one)
        try:
            given = self._give(one.live, [every.asked for every in chosen])
        except Exception:  # whoever is at fault: each for itself
            if len(chosen) == 1:
                raise
            log.warning("questions in company failed; now one by one", exc_info=True)
            self._waiting.extendleft(reversed(chosen[1:]))
            given = self._give(one.live, [one.asked])
        for every, own in zip(chosen, given, strict=False):
            every.given = own
        return given[0]

    def _chosen_with(self, first: Waiting) -> list[Waiting]:
        chosen, work = [first], first.work
        while self._waiting and len(chosen) < self._most:
            other = self._waiting[0]
            work += other.work
            if other.live is not first.live or work > self._most_work:
                break
            chosen.append(self._waiting.popleft())
        return chosen
