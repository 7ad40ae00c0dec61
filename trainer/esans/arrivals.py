"""Maps of a store, arriving while a run trains: a thread follows, the loop takes them."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from index.cluster_map import Hashes
from index.clusters.follower import ClusterFollower, Held
from index.clusters.follower_state import NOT_ASKED
from index.clusters.store import ClusterStore
from index.errors import EsansError
from trainer.esans.following import Build, Following, in_force

FIRST_LOOK_S = 60.0  # a map of millions is read and prepared in a few seconds


@contextmanager
def following(
    store: ClusterStore, known: Hashes, build: Build, poll_s: float
) -> Iterator[Following]:
    """Give a sampler that draws from the store's current map; the thread ends with the block.

    known   [items]  id hashes of the run's items, in row order
    poll_s  seconds between two looks at what is current, where the store does not announce it

    Where nothing usable is current within a bounded time, none has arrived yet, the reason is
    told, and `own` is to be set. Trouble of the store is told once per change, never raised.
    """
    sampler = Following(build)

    def arrive(held: Held | None) -> None:
        if held is not None and held.pointer is not None:
            pointer = held.pointer
            sampler.arrived = in_force(
                held.clusters, build, pointer.version, pointer.sequence, store.place
            )

    follower = ClusterFollower(store, known, own=None, poll_s=poll_s, on_change=arrive)
    with logged_above_the_bar(logging.getLogger("clusters")):
        follower.start()
        try:
            wait_for_the_first(sampler, follower, store)
            yield sampler
        finally:
            follower.stop()


@contextmanager
def logged_above_the_bar(log: logging.Logger) -> Iterator[None]:
    """Let a person see what is logged, good news too, without tearing the progress bar."""
    level = log.level
    log.setLevel(logging.INFO)
    try:
        with logging_redirect_tqdm([log]):
            yield
    finally:
        log.setLevel(level)


def wait_for_the_first(
    sampler: Following, follower: ClusterFollower, store: ClusterStore
) -> None:
    """Wait until the current map has arrived, or it is clear that it will not soon."""
    reason = reason_for_none(store)
    deadline = time.monotonic() + FIRST_LOOK_S
    while sampler.arrived is None and not reason:
        state = follower.state
        if state.status != "following" and NOT_ASKED not in state.reasons:
            reason = "; ".join(state.reasons) or state.status
        elif time.monotonic() > deadline:
            reason = f"no map within {FIRST_LOOK_S:g} s"
        else:
            time.sleep(0.01)
    if sampler.arrived is None:
        tqdm.write(
            f"{store.place}: {reason}; the run begins with its own map, and takes over the "
            "store's as soon as there is one"
        )


def reason_for_none(store: ClusterStore) -> str:
    """Return why there is no map to wait for, "" where there is one."""
    try:
        return "" if store.pointer() else "nothing is published"
    except EsansError as error:
        return str(error)
