"""A thread that polls: asked for, waited for, slowed down, ended."""

import logging
import threading
import time

from index.errors import StoreUnreachableError
from index.storage.watcher import BACK_OFF, Outcome, Watcher
from tests.support.redis_server import wait_until

LOG = logging.getLogger("watched")


class Gated(Watcher):
    """Polls only as often as it is let."""

    def __init__(self, poll_s=3_600.0):
        super().__init__("gated", poll_s, LOG)
        self.begun = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def poll(self):
        self.begun.release()
        self.gate.acquire()
        return Outcome("following")


def test_whoever_waits_for_a_poll_gets_one_that_began_after_the_asking():
    watcher, seen, asking = Gated(), [], threading.Event()

    def wait():
        asking.set()
        seen.append(watcher.poll_now(60))

    watcher.start()
    watcher.begun.acquire()  # has begun already: not for who asks now
    asker = threading.Thread(target=wait)
    asker.start()
    asking.wait()
    wait_until(lambda: watcher._requested.is_set())
    watcher.gate.release()
    watcher.begun.acquire()
    assert seen == []
    watcher.gate.release()
    asker.join()
    assert seen == [True]
    watcher.stop()


def test_nobody_waits_for_a_poll_that_will_not_be_taken():
    watcher = Gated()
    assert not watcher.poll_now(0.01)
    watcher.start()
    watcher.gate.release(2)  # the poll that was asked for, too
    watcher.wait_for_first_poll(60)
    watcher.stop()
    assert not watcher.poll_now(3_600)


class Failing(Watcher):
    """Finds its store away until it is told otherwise."""

    def __init__(self, poll_s):
        super().__init__("failing", poll_s, LOG, "the store")
        self.polls, self.is_away = [], True

    def poll(self):
        self.polls.append(time.monotonic())
        if self.is_away:
            raise StoreUnreachableError("planted")
        return Outcome("following")


def test_a_store_that_is_away_is_polled_less_often_and_soon_enough(caplog):
    watcher = Failing(0.05)
    watcher.start()
    wait_until(lambda: len(watcher.polls) > 5)
    assert watcher.state.status == "unreachable"
    begin, end = watcher.polls[2], watcher.polls[5]
    assert end - begin > 3 * 0.05 * BACK_OFF * 0.85
    watcher.is_away = False
    wait_until(lambda: watcher.state.status == "following")
    watcher.stop()
    assert caplog.messages == ["the store: unreachable; planted"]
    assert watcher.state.errors >= 6
