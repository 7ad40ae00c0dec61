"""The deny list in Redis: one key, replaced by compare-and-set.

{ns}:deny:current    as `deny_list` writes it down
"""

from collections.abc import Callable
from contextlib import suppress

from index.deny.deny_list import HEAD_BYTES, DenyHead, DenyList, is_lost, parse_head, parse_list
from index.errors import FaultyDenyListError
from index.stores.redis_address import check_namespace
from index.stores.redis_door import TIMEOUT_S, Command, RedisDoor, Watched

Read = Callable[[], DenyList | None]
Plan = Callable[[Read], DenyList]


class RedisDeny:
    """A DenyStore in Redis.

    Raises ConfigError if the address or the namespace cannot be used.
    """

    forgets = True

    def __init__(
        self, url: str, namespace: str = "esans", *, timeout_s: float = TIMEOUT_S
    ) -> None:
        check_namespace(namespace, "deny list")
        self._door = RedisDoor(url, timeout_s)
        self._key = f"{namespace}:deny:current"
        self.place = f"{self._door.place}, key {self._key}"

    def head(self) -> DenyHead | None:
        """Read what the list says of itself, None where there is none."""
        found = self._door.get_head(self._key, HEAD_BYTES)
        return None if found is None else parse_head(found, self.place)

    def read(self) -> DenyList | None:
        """Read the list, None where there is none."""
        return self._parsed(self._door.get(self._key))

    def change(self, plan: Plan) -> DenyList:
        """Replace the list by what a plan makes of it."""

        def step(watched: Watched) -> tuple[list[Command], DenyList]:
            after = plan(lambda: self._parsed(watched.get(self._key)))
            return [("SET", self._key, after.written())], after

        return self._door.change(step)

    def seed(self, held: DenyList) -> bool:
        """Put a list back where there is none, an older or a damaged one."""

        def step(watched: Watched) -> tuple[list[Command], bool]:
            before = self._or_none(watched)
            if not is_lost(before.head if before else None, held):
                return [], False
            return [("SET", self._key, held.written())], True

        return self._door.change(step)

    def _or_none(self, watched: Watched) -> DenyList | None:
        with suppress(FaultyDenyListError):  # being replaced repairs it
            return self._parsed(watched.get(self._key))
        return None

    def _parsed(self, found: bytes | None) -> DenyList | None:
        return None if found is None else parse_list(found, self.place)
