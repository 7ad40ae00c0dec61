"""Looks at something that changes: taken by one thread, asked for and waited for by others."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Looks:
    """Counts looks, so that whoever asks for one gets one that began after the asking."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._wanted = threading.Event()
        self._begun = self._done = 0
        self._is_over = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a look; whatever comes of it, it has been taken."""
        with self._changed:
            self._begun += 1
        try:
            yield
        finally:
            with self._changed:
                self._done = self._begun
                self._changed.notify_all()

    def rest(self, limit_s: float) -> None:
        """Do nothing until the time is over or a look is wanted."""
        self._wanted.wait(limit_s)
        self._wanted.clear()

    def want(self) -> None:
        """Ask for a look soon; returns at once."""
        self._wanted.set()

    def wait_for_one(self, limit_s: float) -> bool:
        """Ask for a look and wait for its end; return whether it came in time."""
        with self._changed:
            after = self._begun
            self.want()
            self._changed.wait_for(lambda: self._done > after or self._is_over, limit_s)
            return self._done > after

    def wait_for_the_first(self, limit_s: float) -> None:
        """Wait until a look has been taken, ever."""
        with self._changed:
            self._changed.wait_for(lambda: self._done > 0 or self._is_over, limit_s)

    def end(self) -> None:
        """Let nobody wait any more: no further look will be taken."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
