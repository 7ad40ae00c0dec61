"""A sampler whose map is replaced while it trains: between two steps, never within one.

It knows no store. Maps are handed to it as they arrive, from another thread if need be.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from index.cluster_map import ClusterMap
from index.clusters.files import card_of
from trainer.samplers.base import SampledNegatives, Sampler, StepContext

OWN = "made by this run"

Build = Callable[[ClusterMap], Sampler]


@dataclass(frozen=True)
class InForce:
    """A map of the run's items, the sampler that draws from it, and what is told of it.

    told  its card, and `published_version`, `sequence` (None: the run's own), `source`
    """

    clusters: ClusterMap
    sampler: Sampler
    told: dict[str, Any]


def in_force(
    clusters: ClusterMap,
    build: Build,
    published_version: str,
    sequence: int | None = None,
    source: str = OWN,
) -> InForce:
    """Prepare a map, so that taking it costs a step nothing: a million items are hashed here.

    clusters           joined with the run's items
    published_version  that of the map before it was joined
    """
    told = card_of(clusters).model_dump(mode="json") | {
        "published_version": published_version,
        "sequence": sequence,
        "source": source,
    }
    return InForce(clusters, build(clusters), told)


class Following:
    """Draws from the newest map that arrived; until one does, from the run's own.

    `arrived` may be replaced by another thread at any time. A step sees one map: what arrived
    is taken by `swap`, which the loop calls between two steps.
    """

    def __init__(self, build: Build, own: InForce | None = None) -> None:
        self.build, self.own = build, own
        self.arrived: InForce | None = None
        self.now: InForce | None = None

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Draw from the map in force."""
        return self._current().sampler(context)

    @property
    def clusters(self) -> ClusterMap:
        """Return the map in force."""
        return self._current().clusters

    @property
    def is_own(self) -> bool:
        """Return whether the map in force is the run's own."""
        return self._current().told["sequence"] is None

    def swap(self, step: int) -> dict[str, Any] | None:
        """Draw from the newest map, from this step on; see `HotSwapSampler`."""
        before, newest = self.now, self.arrived or self.now or self.own
        self.now = newest
        if newest is None or newest is before or _is_same(newest, before):
            return None
        return newest.told | {"from_step": step}

    def state(self) -> dict[str, Tensor]:
        """Return the map in force: a run that goes on without a store has no other."""
        found = self._current()
        arrays = {name: getattr(found.clusters, name) for name in KEPT}
        arrays["told"] = np.frombuffer(json.dumps(found.told).encode(), np.uint8)
        return {name: torch.from_numpy(np.array(one)) for name, one in arrays.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put the map back in force that was when `state` was called."""
        told = json.loads(state["told"].numpy().tobytes())
        clusters = ClusterMap(
            **{name: state[name].numpy() for name in KEPT if name != "id_hashes"},
            id_hashes=state["id_hashes"].numpy(),
            temperature_share=told["temperature_share"],
            made=told["made"],
        )
        self.now = InForce(clusters, self.build(clusters), told)

    def _current(self) -> InForce:
        found = self.now or self.arrived or self.own
        if found is None:
            raise ValueError("no map is in force: one must arrive, or the run bring its own")
        return found


KEPT = ("codes1", "codes2", "centroids", "id_hashes")


def _is_same(one: InForce, other: InForce | None) -> bool:
    return other is not None and (
        one.told["published_version"] == other.told["published_version"]
    )
