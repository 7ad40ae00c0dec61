"""Questions of different callers that wait at the same time, made ready together.

Sixteen histories read and encoded at once cost little more than a few. Nobody is kept waiting
for that: the first question to have its turn takes along those that stand behind it by then.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from index.retriever import Prepared
from service.answering import prepare_users
from service.live.live_bundle import Live
from service.schemas.retrieval import RetrieveRequest


@dataclass(eq=False)
class Waiting:
    """One caller's question, waiting for its turn.

    text_count  how many ids and values it makes one look up
    prepared    what the search reads, once it is ready
    """

    live: Live
    asked: RetrieveRequest
    text_count: int
    prepared: Prepared | None = None


class Company:
    """Those that wait and are not ready, in the order in which they came."""

    def __init__(self, most: int, most_texts: int) -> None:
        """Make at most so many ready at once, which look up at most so many texts."""
        self._most = most
        self._most_texts = most_texts
        self._waiting: deque[Waiting] = deque()

    @contextmanager
    def waiting(self, one: Waiting) -> Iterator[None]:
        """Let a question wait here; whatever becomes of its caller, it leaves at the end."""
        self._waiting.append(one)
        try:
            yield
        finally:
            if one.prepared is None and one in self._waiting:
                self._waiting.remove(one)

    def get_ready(self, one: Waiting) -> None:
        """Make a question ready, and with it those that came after it.

        Raises what `prepare_users` raises for this question; the others then wait on.
        """
        self._waiting.remove(one)
        chosen = self._chosen_with(one)
        try:
            ready = prepare_users(one.live, [every.asked for every in chosen])
        except Exception:  # whoever is at fault: each for itself
            self._waiting.extendleft(reversed(chosen[1:]))
            ready = prepare_users(one.live, [one.asked])
        for every, own in zip(chosen, ready, strict=False):
            every.prepared = own

    def _chosen_with(self, first: Waiting) -> list[Waiting]:
        chosen, texts = [first], first.text_count
        while self._waiting and len(chosen) < self._most:
            other = self._waiting[0]
            texts += other.text_count
            if other.live is not first.live or texts > self._most_texts:
                break
            chosen.append(self._waiting.popleft())
        return chosen
