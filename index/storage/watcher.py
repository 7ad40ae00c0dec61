"""Polling watcher: a thread that keeps a value up to date and reports its state.

A poll runs every few seconds, and at once on a notification or a request. If a poll fails, the
last valid value stays, the state gives the reason, and polling continues.
"""

import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
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

NOT_POLLED = "not polled yet"  # the reason before the first poll
STOP_S = 5.0  # how long `stop` waits for a running poll
SLICE_S = 0.25  # latency of a poll request while waiting for notifications
BACK_OFF = 4  # maximum factor on the poll interval while the store is unreachable
BACK_OFF_S = 5.0  # maximum pause, unless the poll interval is longer
JITTER = 0.1  # keeps replicas from polling in lockstep

Status = Literal["following", "unreachable", "rejected", "empty", "stopped"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class WatchState:
    """State of a watcher; counts are since the start.

    Attributes:
        since: Unix seconds of the last change of `status`.
        changes: Values accepted.
        errors: Polls that failed.
        rejections: Values rejected, each counted once.
    """

    status: Status = "empty"
    reasons: tuple[str, ...] = (NOT_POLLED,)
    since: float = field(default_factory=time.time)
    changes: int = 0
    errors: int = 0
    rejections: int = 0


class Outcome(NamedTuple):
    """Result of a poll; `error` is the exception raised, if any."""

    status: Status
    reasons: tuple[str, ...] = ()
    error: BaseException | None = None


class Watcher(ABC, Generic[Value]):
    """A daemon thread that polls.

    Args:
        name: Name of the thread.
        poll_s: Poll interval.
        log: Logger for status changes.
        label: Prefix of log lines; None if the subclass logs status changes itself.
    """

    def __init__(
        self, name: str, poll_s: float, log: logging.Logger, label: str | None = None
    ) -> None:
        self.value: Value | None = None
        self.state = WatchState()
        self._poll_s = poll_s
        self._log = log
        self._label = label
        self.is_delivered = True  # whether `deliver` succeeded for `value`
        self._random = random.Random()  # independent of the random seeds of a training run
        self._last_failure = ""
        self._failures = 0  # consecutive polls with an unreachable store
        self._polled = threading.Condition()
        self._num_started = self._num_finished = 0
        self._has_ended = False
        self._requested = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def poll(self) -> Outcome:
        """Check the source once, and call `set_value` on a new value; may raise anything."""

    def deliver(self, value: Value | None) -> None:
        """Handle a new value; called after each poll until it succeeds."""

    def subscribe(self) -> Notifications | None:
        """Subscribe to changes if the source supports it; called in the thread."""

    def start(self) -> None:
        """Start polling; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits up to STOP_S for a running poll."""
        self._stopping.set()
        self._requested.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self.state = replace(self.state, status="stopped", reasons=(), since=time.time())

    def request_poll(self) -> None:
        """Request a poll; returns at once."""
        self._requested.set()

    def poll_now(self, timeout_s: float) -> bool:
        """Wait for a poll that starts after this call; return whether it finished in time."""
        with self._polled:
            before = self._num_started
            self.request_poll()
            self._polled.wait_for(lambda: self._num_finished > before or self._has_ended, timeout_s)
            return self._num_finished > before

    def wait_for_first_poll(self, timeout_s: float) -> None:
        """Wait until the first poll has finished."""
        with self._polled:
            self._polled.wait_for(lambda: self._num_finished > 0 or self._has_ended, timeout_s)

    def set_value(self, value: Value | None) -> None:
        """Replace the value; it is delivered after this poll."""
        self.value, self.is_delivered = value, False
        self.state = replace(self.state, changes=self.state.changes + 1)

    def deliver_pending(self) -> None:
        """Deliver the value unless that has succeeded."""
        if not self.is_delivered:
            self.deliver(self.value)
        self.is_delivered = True

    def set_outcome(self, outcome: Outcome) -> None:
        """Update the state; log changes once."""
        state, (status, reasons, error) = self.state, outcome
        has_changed = (status, reasons) != (state.status, state.reasons)
        self.state = replace(
            state,
            status=status,
            reasons=reasons,
            since=state.since if status == state.status else time.time(),
            errors=state.errors + (error is not None),
            rejections=state.rejections + (has_changed and status == "rejected"),
        )
        if has_changed and self._label:
            level = logging.INFO if status in ("following", "empty") else logging.WARNING
            text = "".join(f"; {reason}" for reason in reasons)
            unexpected = None if isinstance(error, EsansError) else error
            self._log.log(level, "%s: %s%s", self._label, status, text, exc_info=unexpected)

    def _run(self) -> None:
        notifications: Notifications | None = None
        while not self._stopping.is_set():
            try:
                notifications = notifications or self.subscribe()
                self._poll_once()
                self._pause(notifications)
            except BaseException as error:  # the thread goes on, whatever happens
                self._report_failure(error)
        with self._polled:
            self._has_ended = True
            self._polled.notify_all()
        if notifications:
            notifications.close()

    def _report_failure(self, error: BaseException) -> None:
        """Log an error outside a poll, once, and wait for the next poll time."""
        with suppress(BaseException):  # without memory, even this may fail
            if (text := repr(error)) != self._last_failure:
                self._last_failure = text
                label = self._label or self._thread.name
                self._log.error("%s: polling failed; it continues", label, exc_info=error)
            self._pause(None)

    def _poll_once(self) -> None:
        with self._polled:
            self._num_started += 1
        try:
            outcome = run_step(self._poll_and_deliver)
            self._failures = self._failures + 1 if outcome.status == "unreachable" else 0
            self.set_outcome(outcome)
        finally:
            with self._polled:
                self._num_finished = self._num_started
                self._polled.notify_all()

    def _poll_and_deliver(self) -> Outcome:
        outcome = run_step(self.poll)
        self.deliver_pending()
        return outcome

    def _pause(self, notifications: Notifications | None) -> None:
        """Wait for the next poll time, a notification or a request."""
        pause_s = self._poll_s * min(2**self._failures, BACK_OFF)
        pause_s = min(pause_s, max(self._poll_s, BACK_OFF_S))
        end = time.monotonic() + pause_s * self._random.uniform(1 - JITTER, 1)
        while not self._requested.is_set() and (left_s := end - time.monotonic()) > 0:
            if notifications is None:
                self._requested.wait(left_s)
            elif notifications.wait(min(left_s, SLICE_S)):
                break
        self._requested.clear()


def run_step(step: Callable[[], Outcome]) -> Outcome:
    """Run a step; an exception becomes its outcome."""
    try:
        return step()
    except EsansError as error:
        return Outcome(status_of(error), reasons_of(error), error)
    except BaseException as error:  # unexpected: report it and keep polling
        return Outcome("rejected", reasons_of(error), error)


def status_of(error: EsansError) -> Status:
    """Map an error to a status."""
    if isinstance(error, StoreFullError | ReadOnlyStoreError):
        return "empty"  # raised only when repopulating an empty store
    if isinstance(error, NoClusterMapError | IncompatibleClusterMapError):
        return "rejected"
    return "unreachable" if isinstance(error, ClusterStoreError) else "rejected"


def reasons_of(error: BaseException) -> tuple[str, ...]:
    """Render an error as reasons, one per fault."""
    if isinstance(error, FaultsError):
        return tuple(f"{error.location}: {fault}" for fault in error.faults)
    return (str(error) if isinstance(error, EsansError) else f"{type(error).__name__}: {error}",)
