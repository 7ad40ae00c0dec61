"""Hot swap of the cluster map of a sampler, between two training steps and never within one.

A thread watches the registry and prepares each map it receives; the training loop swaps to the
prepared one. Until a map is received, the sampler uses the map that the run built itself.
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
from index.cluster_map_io import build_metadata
from index.cluster_map_registry import ClusterMapRegistry
from index.cluster_map_watcher import ActiveMap, Catalogue, ClusterMapWatcher
from index.errors import EsansError
from index.storage.watcher import NOT_POLLED
from trainer.distributed import broadcast_tensors, is_main_rank, num_ranks, on_main_rank
from trainer.samplers.base import SampledNegatives, Sampler, StepContext

OWN = "made by this run"
FIRST_MAP_TIMEOUT_S = 60.0  # a map of millions of items loads in a few seconds

BuildSampler = Callable[[ClusterMap], Sampler]


@dataclass(frozen=True)
class MapSampler:
    """Cluster map of the run's items, its sampler, and its manifest entry.

    Attributes:
        clusters: joined with the run's items.
        sampler: samples from `clusters`.
        description: card of the map, with `published_version`, `sequence` (None for the run's
            own map) and `source`.
    """

    clusters: ClusterMap
    sampler: Sampler
    description: dict[str, Any]

    @property
    def published_version(self) -> str:
        """Return the version of the map before it was joined with the run's items."""
        return str(self.description["published_version"])


def build_map_sampler(
    clusters: ClusterMap,
    build: BuildSampler,
    published_version: str | None = None,
    sequence: int | None = None,
    source: str = OWN,
) -> MapSampler:
    """Build the sampler of a map ahead of the swap: hashing a million items takes time.

    Args:
        clusters: joined with the run's items.
        build: builds a sampler that uses the map.
        published_version: version before the join; None for the run's own map.
        sequence: of the current pointer; None for the run's own map.
        source: display name of the registry.
    """
    description = build_metadata(clusters).model_dump(mode="json") | {
        "published_version": published_version or clusters.version,
        "sequence": sequence,
        "source": source,
    }
    return MapSampler(clusters, build(clusters), description)


class HotSwapSampler:
    """Samples from the newest received map, or from the run's own until one is received.

    Another thread may replace `received_map` at any time. A step sees one map: `swap`, which
    the training loop calls between two steps, makes the received map active.
    """

    def __init__(self, build: BuildSampler, own_map: MapSampler | None = None) -> None:
        self.build, self.own_map = build, own_map
        self.received_map: MapSampler | None = None
        self._active_map: MapSampler | None = None

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample from the active map."""
        return self.active_map.sampler(context)

    @property
    def active_map(self) -> MapSampler:
        """Return the active map and its sampler."""
        active = self._active_map or self.received_map or self.own_map
        if active is None:
            raise ValueError("no map is active: set own_map, or wait until a map is received")
        return active

    @property
    def clusters(self) -> ClusterMap:
        """Return the active map."""
        return self.active_map.clusters

    @property
    def is_own_map(self) -> bool:
        """Return whether the active map is the run's own."""
        return self.active_map.description["sequence"] is None

    def swap(self, step: int) -> dict[str, Any] | None:
        """Sample from the newest map from this step on; see `SwappableSampler`.

        With several ranks, all swap to the newest map of the main rank.
        """
        swapped = on_main_rank(lambda: self._swap(step))
        if swapped is not None and num_ranks() > 1:
            state = broadcast_tensors(self.state_dict() if is_main_rank() else {})
            if not is_main_rank():
                self.load_state_dict(state)
        return swapped

    def _swap(self, step: int) -> dict[str, Any] | None:
        previous = self._active_map
        newest = self._active_map = self.received_map or previous or self.own_map
        if newest is None or (previous and newest.published_version == previous.published_version):
            return None
        return newest.description | {"from_step": step}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the active map: a run resumed without its registry has no other."""
        clusters, description = self.active_map.clusters, self.active_map.description
        arrays = {name: getattr(clusters, name) for name in ARRAYS}
        arrays["description"] = np.frombuffer(json.dumps(description).encode(), np.uint8)
        return {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Activate the map that was active when `state_dict` was called."""
        description = json.loads(state["description"].numpy().tobytes())
        clusters = ClusterMap(
            **{name: state[name].numpy() for name in ARRAYS},
            temperature_share=description["temperature_share"],
            made=description["made"],
        )
        self._active_map = MapSampler(clusters, self.build(clusters), description)


@contextmanager
def watch_cluster_maps(
    registry: ClusterMapRegistry, id_hashes: Hashes, build: BuildSampler, poll_s: float
) -> Iterator[HotSwapSampler]:
    """Yield a sampler that follows the current map of a registry; the thread ends with the block.

    If no usable map is received within `FIRST_MAP_TIMEOUT_S`, the reason is printed and the
    caller must set `own_map`. Registry errors are logged once per change and never raised.

    Args:
        registry: to watch.
        id_hashes: [num_items], of the run's items in row order.
        build: builds a sampler of a map.
        poll_s: seconds between polls if the registry sends no notifications.
    """
    sampler = HotSwapSampler(build)

    def prepare(held: ActiveMap | None) -> None:
        if held is not None and held.pointer is not None:
            version, sequence = held.pointer.version, held.pointer.sequence
            sampler.received_map = build_map_sampler(
                held.clusters, build, version, sequence, registry.location
            )

    catalogue = Catalogue(id_hashes, None)
    watcher = ClusterMapWatcher(registry, catalogue, poll_s=poll_s, on_change=prepare)
    with log_above_progress_bar(logging.getLogger("clusters")):
        watcher.start()
        try:
            _wait_for_first_map(sampler, watcher, registry)
            yield sampler
        finally:
            watcher.stop()


@contextmanager
def log_above_progress_bar(log: logging.Logger) -> Iterator[None]:
    """Print log records from INFO up above the progress bar."""
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
    """Wait for the current map; on failure or timeout print the reason and return."""
    reason = _unavailable_reason(registry)
    deadline = time.monotonic() + FIRST_MAP_TIMEOUT_S
    while sampler.received_map is None and not reason:
        state = watcher.state
        if state.status != "following" and NOT_POLLED not in state.reasons:
            reason = "; ".join(state.reasons) or state.status
        elif time.monotonic() > deadline:
            reason = f"no map received within {FIRST_MAP_TIMEOUT_S:g} s"
        else:
            time.sleep(0.01)
    if sampler.received_map is None:
        tqdm.write(
            f"{registry.location}: {reason}; the run begins with its own map and swaps to the "
            "store's map once there is one"
        )


def _unavailable_reason(registry: ClusterMapRegistry) -> str:
    """Return why there is no map to wait for, "" if there is one."""
    try:
        return "" if registry.pointer() else "nothing is published"
    except EsansError as error:
        return str(error)
