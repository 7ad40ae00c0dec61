"""What is live, and what is wrong: one reference, read without a lock, changed by two threads.

A bundle comes in one thread, a deny list in another; what answers has always both.
"""

import threading
from dataclasses import dataclass, replace
from typing import Literal

from index.deny.deny_list import DenyList
from service.live.live import Live, denying

Waiting = Literal["loading", "no bundle", "refused"]


@dataclass(frozen=True)
class State:
    """Everything there is to know at one moment; replaced, never changed."""

    live: Live | None = None
    waiting: Waiting = "loading"
    reasons: tuple[str, ...] = ()
    is_stopped: bool = False


class LiveState:
    """Holds the state of this moment."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._deny_list: DenyList | None = None
        self.now = State()

    def go_live(self, live: Live) -> None:
        """Let a bundle answer from now on, without the items that are denied."""
        with self._changing:
            self.now = State(denying(live, self._deny_list))

    def deny(self, deny_list: DenyList) -> None:
        """Return these items no more, from this bundle and from those to come."""
        with self._changing:
            self._deny_list = deny_list
            if self.now.live:
                self.now = replace(self.now, live=denying(self.now.live, deny_list))

    def is_well(self) -> None:
        """Forget what was wrong."""
        with self._changing:
            self.now = State(self.now.live)

    def is_wrong(self, waiting: Waiting, reasons: tuple[str, ...]) -> None:
        """Tell what is wrong; what is live answers on."""
        with self._changing:
            self.now = State(self.now.live, waiting, reasons)

    def is_over(self, reason: str) -> None:
        """Tell that nothing is followed any more; what is live answers on."""
        with self._changing:
            self.now = replace(self.now, is_stopped=True, reasons=(reason,))
