"""Hot swap of the cluster map that a sampler draws from: between two steps, never within one.

A thread watches the registry, and prepares each map as it arrives; the training loop takes over
what is ready. Until a map arrives the sampler draws from the run's own.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from index.arrays import Hashes
from index.cluster_map import ARRAYS, ClusterMap
from index.cluster_map_io import card_of
from index.cluster_map_registry import ClusterMapRegistry
from index.cluster_map_watcher import Catalogue, ClusterMapWatcher, HeldMap
from index.errors import EsansError
from index.storage.watcher import NOT_POLLED
from trainer.samplers.base import SampledNegatives, Sampler, StepContext

OWN = "made by this run"
FIRST_MAP_S = 60.0  # a map of millions is read and prepared in a few seconds

BuildSampler = Callable[[ClusterMap], Sampler]


@dataclass(frozen=True)
class MapSampler:
    """A map of the run's items, the sampler that draws from it, and what the manifest says.

    description  its card, and `published_version`, `sequence` (None: the run's own), `source`
    """

    clusters: ClusterMap
    sampler: Sampler
    description: dict[str, Any]

    @property
    def published_version(self) -> str:
        """Return the version of the map before it was joined."""
        return str(self.description["published_version"])


def build_map_sampler(
    clusters: ClusterMap,
    build: BuildSampler,
    published_version: str | None = None,
    sequence: int | None = None,
    source: str = OWN,
) -> MapSampler:
    """Prepare a map, so that a swap costs a step nothing: a million items are hashed here.

    Args:
        clusters: joined with the run's items.
        build: makes a sampler that draws from it.
        published_version: that of the map before it was joined; None for the run's own.
        sequence: of the pointer that named it; None for the run's own.
        source: the registry, for people.
    """
    description = card_of(clusters).model_dump(mode="json") | {
        "published_version": published_version or clusters.version,
        "sequence": sequence,
        "source": source,
    }
    return MapSampler(clusters, build(clusters), description)


class HotSwapSampler:
    """Draws from the newest map that arrived; until one does, from the run's own.

    `arrived` may be replaced by another thread at any time. A step sees one map: what arrived
    is taken over by `swap`, which the loop calls between two steps.
    """

    def __init__(self, build: BuildSampler, own: MapSampler | None = None) -> None:
        self.build, self.own = build, own
        self.arrived: MapSampler | None = None
        self._in_use: MapSampler | None = None

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Draw from the map in use."""
        return self.in_use.sampler(context)

    @property
    def in_use(self) -> MapSampler:
        """Return the map in use, with its sampler."""
        found = self._in_use or self.arrived or self.own
        if found is None:
            raise ValueError("no map is in use: one must arrive, or the run bring its own")
        return found

    @property
    def clusters(self) -> ClusterMap:
        """Return the map in use."""
        return self.in_use.clusters

    @property
    def is_own(self) -> bool:
        """Return whether the map in use is the run's own."""
        return self.in_use.description["sequence"] is None

    def swap(self, step: int) -> dict[str, Any] | None:
        """Draw from the newest map, from this step on; see `Swapping`."""
        before = self._in_use
        newest = self._in_use = self.arrived or before or self.own
        if newest is None or (before and newest.published_version == before.published_version):
            return None
        return newest.description | {"from_step": step}

    def state(self) -> dict[str, Tensor]:
        """Return the map in use: a run that resumes without a store has no other."""
        clusters, description = self.in_use.clusters, self.in_use.description
        arrays = {name: getattr(clusters, name) for name in ARRAYS}
        arrays["description"] = np.frombuffer(json.dumps(description).encode(), np.uint8)
        return {name: torch.from_numpy(np.array(one)) for name, one in arrays.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Use the map again that was in use when `state` was called."""
        description = json.loads(state["description"].numpy().tobytes())
        clusters = ClusterMap(
            **{name: state[name].numpy() for name in ARRAYS},
            temperature_share=description["temperature_share"],
            made=description["made"],
        )
        self._in_use = MapSampler(clusters, self.build(clusters), description)


@contextmanager
def watch_cluster_maps(
    registry: ClusterMapRegistry, known: Hashes, build: BuildSampler, poll_s: float
) -> Iterator[HotSwapSampler]:
    """Give a sampler of the registry's current map; the thread ends with the block.

    Where nothing usable is current within a bounded time, none has arrived yet, the reason is
    shown, and `own` is to be set. Trouble of the store is shown once per change, never raised.

    Args:
        registry: what is watched.
        known: [items] id hashes of the run's items, in row order.
        build: makes a sampler of a map.
        poll_s: seconds between two polls, where the store does not announce changes.
    """
    sampler = HotSwapSampler(build)

    def prepare(held: HeldMap | None) -> None:
        if held is not None and held.pointer is not None:
            version, sequence = held.pointer.version, held.pointer.sequence
            sampler.arrived = build_map_sampler(
                held.clusters, build, version, sequence, registry.place
            )

    watcher = ClusterMapWatcher(registry, Catalogue(known, None), poll_s=poll_s, on_change=prepare)
    with log_above_progress_bar(logging.getLogger("clusters")):
        watcher.start()
        try:
            _wait_for_first_map(sampler, watcher, registry)
            yield sampler
        finally:
            watcher.stop()


@contextmanager
def log_above_progress_bar(log: logging.Logger) -> Iterator[None]:
    """Show what is logged, good news too, without tearing the progress bar."""
    level = log.level
    log.setLevel(logging.INFO)
    try:
        with logging_redirect_tqdm([log]):
            yield
    finally:
        log.setLevel(level)


def _wait_for_first_map(
    sampler: HotSwapSampler, watcher: ClusterMapWatcher, registry: ClusterMapRegistry
) -> None:
    """Wait until the current map has arrived, or it is clear that it will not soon."""
    reason = _reason_for_none(registry)
    deadline = time.monotonic() + FIRST_MAP_S
    while sampler.arrived is None and not reason:
        state = watcher.state
        if state.status != "following" and NOT_POLLED not in state.reasons:
            reason = "; ".join(state.reasons) or state.status
        elif time.monotonic() > deadline:
            reason = f"no map within {FIRST_MAP_S:g} s"
        else:
            time.sleep(0.01)
    if sampler.arrived is None:
        tqdm.write(
            f"{registry.place}: {reason}; the run begins with its own map, and takes over the "
            "store's as soon as there is one"
        )


def _reason_for_none(registry: ClusterMapRegistry) -> str:
    """Return why there is no map to wait for, "" where there is one."""
    try:
        return "" if registry.pointer() else "nothing is published"
    except EsansError as error:
        return str(error)
