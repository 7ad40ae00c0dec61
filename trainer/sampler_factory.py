"""From the sampler's name in a configuration to the sampler, and to the map that it needs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from index.cluster_map import ClusterMap
from index.cluster_map_registry import ClusterMapRegistry
from index.errors import ConfigError
from index.ids import hash_ids
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.esans.build_map import build_cluster_map
from trainer.esans.hot_swap import HotSwapSampler, build_map_sampler, watch_cluster_maps
from trainer.esans.sampler import EsansSampler
from trainer.samplers.base import Sampler
from trainer.samplers.config import EsansConfig, SamplerConfig
from trainer.samplers.literature import (
    BatchMixSampler,
    CrossBatchSampler,
    DnsSampler,
    MixedSampler,
    PositiveMixingSampler,
)
from trainer.samplers.simple import (
    PopularitySampler,
    UniformSampler,
    sample_full,
    sample_in_batch,
    sample_in_batch_uncorrected,
)

SAMPLERS: dict[str, Callable[[Any], Sampler]] = {
    "in-batch": lambda _: sample_in_batch,
    "in-batch-uncorrected": lambda _: sample_in_batch_uncorrected,
    "full": lambda _: sample_full,
    "uniform": lambda one: UniformSampler(one.count),
    "popularity": lambda one: PopularitySampler(one.count, one.exponent),
    "mixed": lambda one: MixedSampler(one.count),
    "cross-batch": lambda one: CrossBatchSampler(one.size, one.warmup_steps),
    "dns": lambda one: DnsSampler(one.count, one.kept),
    "batch-mix": lambda one: BatchMixSampler(
        one.count, one.in_batch_weight, one.mixing_temperature
    ),
    "positive-mixing": lambda one: PositiveMixingSampler(one.count, one.candidates, one.kept),
}


def build_sampler(config: SamplerConfig, clusters: ClusterMap | None = None) -> Sampler:
    """Return the sampler that a configuration names, new and without memory.

    clusters  of the whole catalogue, row by row; see `clusters_for`

    Raises ValueError if it is needed and not given.
    """
    if isinstance(config, EsansConfig):
        if clusters is None:
            raise ValueError(f"the sampler {config.name} needs a cluster map")
        return EsansSampler(clusters, config)
    return SAMPLERS[config.name](config)


def clusters_for(data: Dataset, config: RunConfig, now: datetime) -> ClusterMap | None:
    """Build the cluster map of a dataset where the configured sampler draws from one."""
    if not isinstance(config.training.sampler, EsansConfig):
        return None
    return build_cluster_map(data, config.clusters, config.seed, now)


@contextmanager
def open_sampler(
    data: Dataset, config: RunConfig, followed: ClusterMapRegistry | None, poll_s: float = 2.0
) -> Iterator[Sampler]:
    """Open the sampler of a run, with the map that it needs; a thread ends with the block.

    followed  the store whose current map is drawn from, where there is one that fits; None for
              the run's own map
    poll_s    seconds between two polls of it, where it does not notify
    """
    now = datetime.now(UTC)
    if followed is None:
        yield build_sampler(config.training.sampler, clusters_for(data, config, now))
        return

    build = partial(build_sampler, config.training.sampler)
    known = hash_ids(one.encode() for one in data.item_ids)
    with watch_cluster_maps(followed, known, build, poll_s) as sampler:
        if sampler.received_map is None:
            own = build_cluster_map(data, config.clusters, config.seed, now)
            sampler.own_map = build_map_sampler(own, build)
        yield sampler


def require_cluster_map_sampler(config: RunConfig) -> None:
    """Raise ConfigError if the configured sampler draws from no map."""
    part = config.training.sampler
    if not isinstance(part, EsansConfig):
        raise ConfigError(
            f"run --follow: the sampler {part.name} draws from no cluster map, expected one "
            'that does; leave --follow out, or say `[training.sampler] name = "esans"` in the '
            "file of --config"
        )


def cluster_map_of(sampler: Sampler) -> ClusterMap | None:
    """Return the map that a sampler draws from now, None where it draws from none."""
    return sampler.clusters if isinstance(sampler, EsansSampler | HotSwapSampler) else None
