"""Hints over pub/sub that a key has changed. It knows no key, and may miss a hint."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol


class Listener(Protocol):
    """What is needed of a client that listens."""

    def subscribe(self, *channels: str) -> object:
        """Connect, and listen to channels."""

    def get_message(
        self, ignore_subscribe_messages: bool = False, timeout: float = 0.0
    ) -> object:
        """Return what came, if anything."""

    def close(self) -> None:
        """Drop the connection."""


class RedisAnnouncements:
    """Hints over pub/sub. Where they cannot be had it waits as long, and then tries again."""

    def __init__(self, open_listener: Callable[[], Listener], channel: str) -> None:
        self._open_listener = open_listener
        self._channel = channel
        self._listener: Listener | None = None

    def wait(self, timeout_s: float) -> bool:
        """Return True soon after an announcement, False after the timeout; never raises."""
        end = time.monotonic() + timeout_s
        try:
            if self._listener is None:
                self._listener = self._open_listener()
                self._listener.subscribe(self._channel)
            while (left_s := end - time.monotonic()) > 0:
                if self._listener.get_message(ignore_subscribe_messages=True, timeout=left_s):
                    return True
        except (
            Exception
        ):  # a client that is told nonsense raises whatever its parser stumbles on
            self.close()  # what is left on that connection cannot be trusted either
            time.sleep(max(end - time.monotonic(), 0))
        return False

    def close(self) -> None:
        """Stop listening."""
        listener, self._listener = self._listener, None
        if listener:
            with suppress(Exception):  # it is dropped in any case
                listener.close()
