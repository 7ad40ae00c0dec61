"""A thread that keeps a value up to date by polling, and says how that goes.

A poll follows the one before after some seconds, at once where a notification comes or somebody
asks. Whatever a poll meets, the last good value stays, the state says why, and polling goes on.
"""

import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, NamedTuple, TypeVar

from index.errors import (
    ClusterStoreError,
    EsansError,
    FaultsError,
    IncompatibleClusterMapError,
    NoClusterMapError,
    ReadOnlyStoreError,
    StoreFullError,
)
from index.storage.protocols import Notifications

NOT_POLLED = "not asked yet"  # the reason before the first poll
STOP_S = 5.0  # how long a stop waits for a poll that has begun
SLICE_S = 0.25  # how long a request may go unheard while notifications are awaited
BACK_OFF = 4  # times the usual pause, at most, while a store is unreachable ...
BACK_OFF_S = 5.0  # ... but no longer than this, or the usual pause
JITTER = 0.1  # so that replicas do not poll in step

Status = Literal["following", "unreachable", "rejected", "empty", "stopped"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class WatchState:
    """How watching goes.

    since     unix seconds of the last change of `status`
    changes   values taken since the start
    errors    polls that failed since the start
    refusals  values turned down since the start, each counted once
    """

    status: Status = "empty"
    reasons: tuple[str, ...] = (NOT_POLLED,)
    since: float = field(default_factory=time.time)
    changes: int = 0
    errors: int = 0
    refusals: int = 0


class Outcome(NamedTuple):
    """What came of a poll; `error` where one was raised."""

    status: Status
    reasons: tuple[str, ...] = ()
    error: BaseException | None = None


class Watcher(ABC, Generic[Value]):
    """A daemon thread that polls.

    name   of the thread
    label  begins each line in the log; None where the subclass logs for itself
    """

    def __init__(
        self, name: str, poll_s: float, log: logging.Logger, label: str | None = None
    ) -> None:
        self.value: Value | None = None
        self.state = WatchState()
        self._poll_s = poll_s
        self._log = log
        self._label = label
        self.is_delivered = True  # whether `value` was, with success
        self._random = random.Random()  # a run's seeds neither set it nor are changed by it
        self._failures = 0  # polls in a row that found the store unreachable
        self._polled = threading.Condition()
        self._begun = self._done = 0
        self._is_over = False
        self._requested = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def poll(self) -> Outcome:
        """Look once, and `take` what is new; may raise anything."""

    def deliver(self, value: Value | None) -> None:
        """Tell of a value that was taken; called after each poll until it succeeds."""

    def subscribe(self) -> Notifications | None:
        """Listen for changes, if they are announced; called in the thread."""

    def start(self) -> None:
        """Begin to poll; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a poll that has begun is waited for, but not for ever."""
        self._stopping.set()
        self._requested.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self.state = replace(self.state, status="stopped", reasons=(), since=time.time())

    def request_poll(self) -> None:
        """Ask for a poll soon; returns at once."""
        self._requested.set()

    def poll_now(self, timeout_s: float) -> bool:
        """Wait for a poll that begins after this call; return whether it ended in time."""
        with self._polled:
            before = self._begun
            self.request_poll()
            self._polled.wait_for(lambda: self._done > before or self._is_over, timeout_s)
            return self._done > before

    def wait_for_first_poll(self, timeout_s: float) -> None:
        """Wait until a poll has ended, ever."""
        with self._polled:
            self._polled.wait_for(lambda: self._done > 0 or self._is_over, timeout_s)

    def take(self, value: Value | None) -> None:
        """Replace the value by another one, to be delivered after this poll."""
        self.value, self.is_delivered = value, False
        self.state = replace(self.state, changes=self.state.changes + 1)

    def deliver_taken(self) -> None:
        """Deliver the value that was taken, unless that has succeeded already."""
        if not self.is_delivered:
            self.deliver(self.value)
        self.is_delivered = True

    def settle(self, outcome: Outcome) -> None:
        """Change the state; log it once where it is news."""
        state, (status, reasons, error) = self.state, outcome
        is_news = (status, reasons) != (state.status, state.reasons)
        if is_news and (self._label or status == "stopped"):
            level = logging.INFO if status in ("following", "empty") else logging.WARNING
            text = "".join(f"; {reason}" for reason in reasons)
            trouble = None if isinstance(error, EsansError) else error
            label = self._label or self._thread.name
            self._log.log(level, "%s: %s%s", label, status, text, exc_info=trouble)
        self.state = replace(
            state,
            status=status,
            reasons=reasons,
            since=state.since if status == state.status else time.time(),
            errors=state.errors + (error is not None),
            refusals=state.refusals + (is_news and status == "rejected"),
        )

    def _run(self) -> None:
        try:
            notifications = self.subscribe()
            while not self._stopping.is_set():
                self._poll_once()
                self._pause(notifications)
            if notifications:
                notifications.close()
        except BaseException as error:  # a thread's last word: without it nobody would know
            text = f"the watching ended by {type(error).__name__}: {error}; expected it to go on"
            self.settle(Outcome("stopped", (f"{text}; restart, and report this",), error))
        finally:
            with self._polled:
                self._is_over = True
                self._polled.notify_all()

    def _poll_once(self) -> None:
        with self._polled:
            self._begun += 1
        try:
            outcome = outcome_of(self._poll_and_deliver)
            self._failures = self._failures + 1 if outcome.status == "unreachable" else 0
            self.settle(outcome)
        finally:
            with self._polled:
                self._done = self._begun
                self._polled.notify_all()

    def _poll_and_deliver(self) -> Outcome:
        outcome = outcome_of(self.poll)
        self.deliver_taken()
        return outcome

    def _pause(self, notifications: Notifications | None) -> None:
        """Wait for the next poll, or for a reason to poll at once."""
        pause_s = self._poll_s * min(2**self._failures, BACK_OFF)
        pause_s = min(pause_s, max(self._poll_s, BACK_OFF_S))
        end = time.monotonic() + pause_s * self._random.uniform(1 - JITTER, 1)
        while not self._requested.is_set() and (left_s := end - time.monotonic()) > 0:
            if notifications is None:
                self._requested.wait(left_s)
            elif notifications.wait(min(left_s, SLICE_S)):
                break
        self._requested.clear()


def outcome_of(step: Callable[[], Outcome]) -> Outcome:
    """Take a step; what it raises becomes its outcome."""
    try:
        return step()
    except EsansError as error:
        return Outcome(status_of(error), reasons_of(error), error)
    except Exception as error:  # nobody has thought of it: say so, and poll on
        return Outcome("rejected", reasons_of(error), error)


def status_of(error: EsansError) -> Status:
    """Say what an error makes of the status."""
    if isinstance(error, StoreFullError | ReadOnlyStoreError):
        return "empty"  # met only where an empty store is to be repopulated
    if isinstance(error, NoClusterMapError | IncompatibleClusterMapError):
        return "rejected"
    return "unreachable" if isinstance(error, ClusterStoreError) else "rejected"


def reasons_of(error: Exception) -> tuple[str, ...]:
    """Say why, a reason a fault."""
    if isinstance(error, FaultsError):
        return tuple(f"{error.location}: {fault}" for fault in error.faults)
    return (str(error) if isinstance(error, EsansError) else f"{type(error).__name__}: {error}",)
