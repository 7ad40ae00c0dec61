"""Watcher thread: requested polls, waiting, back-off, stop."""

import logging
import threading
import time

from index.errors import StoreUnreachableError
from index.storage.watcher import BACK_OFF, Outcome, Watcher
from tests.support.redis_server import wait_until

LOG = logging.getLogger("watched")


class GatedWatcher(Watcher):
    """Watcher whose polls wait for a gate."""

    def __init__(self, poll_s=3_600.0):
        super().__init__("gated", poll_s, LOG)
        self.started = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def poll(self):
        self.started.release()
        self.gate.acquire()
        return Outcome("following")


def test_poll_now_waits_for_a_later_poll():
    watcher, results, is_waiting = GatedWatcher(), [], threading.Event()

    def wait():
        is_waiting.set()
        results.append(watcher.poll_now(60))

    watcher.start()
    watcher.started.acquire()  # a poll that started before the call
    waiter = threading.Thread(target=wait)
    waiter.start()
    is_waiting.wait()
    wait_until(lambda: watcher._requested.is_set())
    watcher.gate.release()
    watcher.started.acquire()
    assert results == []
    watcher.gate.release()
    waiter.join()
    assert results == [True]
    watcher.stop()


def test_poll_now_on_stopped_watcher_returns_false():
    watcher = GatedWatcher()
    assert not watcher.poll_now(0.01)
    watcher.start()
    watcher.gate.release(2)  # including the requested poll
    watcher.wait_for_first_poll(60)
    watcher.stop()
    assert not watcher.poll_now(3_600)


class FailingWatcher(Watcher):
    """Watcher whose store is unreachable until `is_reachable` is set."""

    def __init__(self, poll_s):
        super().__init__("failing", poll_s, LOG, "the store")
        self.polls, self.is_reachable = [], False

    def poll(self):
        self.polls.append(time.monotonic())
        if not self.is_reachable:
            raise StoreUnreachableError("planted")
        return Outcome("following")


def test_watcher_backs_off_while_store_is_unreachable(caplog):
    watcher = FailingWatcher(0.05)
    watcher.start()
    wait_until(lambda: len(watcher.polls) > 5)
    assert watcher.state.status == "unreachable"
    begin, end = watcher.polls[2], watcher.polls[5]
    assert end - begin > 3 * 0.05 * BACK_OFF * 0.85
    watcher.is_reachable = True
    wait_until(lambda: watcher.state.status == "following")
    watcher.stop()
    assert caplog.messages == ["the store: unreachable; planted"]
    assert watcher.state.errors >= 6


class ForgetfulLog(logging.Logger):
    """Logger without memory to log."""

    def handle(self, record):
        raise MemoryError


def test_watcher_that_cannot_log_polls_on():
    watcher = FailingWatcher(0.01)
    watcher._log = ForgetfulLog("forgetful")
    watcher.start()
    wait_until(lambda: len(watcher.polls) > 5)
    watcher.is_reachable = True
    wait_until(lambda: watcher.state.status == "following")
    assert watcher.poll_now(60)
    watcher.stop()
