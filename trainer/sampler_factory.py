"""Factory of negative samplers, with the cluster map of those that need one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from index.cluster_map import ClusterMap
from index.cluster_map_io import open_cluster_map, save_cluster_map
from index.cluster_map_registry import ClusterMapRegistry
from index.errors import ConfigError, InvalidClusterMapError
from index.ids import hash_ids
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.distributed import is_main_rank, on_main_rank
from trainer.esans.build_map import build_cluster_map
from trainer.esans.hot_swap import HotSwapSampler, build_map_sampler, watch_cluster_maps
from trainer.esans.sampler import EsansSampler
from trainer.samplers.banks import CrossBatchSampler, PopularityBankSampler
from trainer.samplers.base import Sampler
from trainer.samplers.config import EsansConfig, SamplerConfig
from trainer.samplers.literature import (
    BatchMixSampler,
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
    "uniform": lambda config: UniformSampler(config.count),
    "popularity": lambda config: PopularitySampler(config.count, config.exponent),
    "mixed": lambda config: MixedSampler(config.count),
    "cross-batch": lambda config: CrossBatchSampler(config.size, config.warmup_steps),
    "popularity-bank": lambda config: PopularityBankSampler(
        config.count, config.exponent, config.size, config.warmup_steps
    ),
    "dns": lambda config: DnsSampler(config.count, config.kept),
    "batch-mix": lambda config: BatchMixSampler(
        config.count, config.in_batch_weight, config.mixing_temperature
    ),
    "positive-mixing": lambda config: PositiveMixingSampler(
        config.count, config.candidates, config.kept
    ),
}


def build_sampler(config: SamplerConfig, clusters: ClusterMap | None = None) -> Sampler:
    """Build the configured sampler in its initial state.

    Args:
        config: section of the sampler.
        clusters: cluster map of the catalogue in row order; see `build_required_map`.

    Raises:
        ValueError: the sampler needs a cluster map and `clusters` is None.
    """
    if isinstance(config, EsansConfig):
        if clusters is None:
            raise ValueError(f"the sampler {config.name} needs a cluster map")
        return EsansSampler(clusters, config)
    return SAMPLERS[config.name](config)


def build_required_map(
    data: Dataset, config: RunConfig, now: datetime, kept: Path | None = None
) -> ClusterMap | None:
    """Build the cluster map of a dataset if the configured sampler needs one."""
    if not isinstance(config.training.sampler, EsansConfig):
        return None
    return on_main_rank(lambda: build_or_open_map(data, config, now, kept))


def build_or_open_map(
    data: Dataset, config: RunConfig, now: datetime, kept: Path | None
) -> ClusterMap:
    """Open the map that an interrupted run kept in a folder, or build and keep it."""
    if kept is not None:
        with suppress(InvalidClusterMapError, FileNotFoundError):
            return open_cluster_map(kept)
    clusters = build_cluster_map(data, config.clusters, config.seed, now)
    if kept is not None:
        save_cluster_map(clusters, kept)
    return clusters


@contextmanager
def open_sampler(
    data: Dataset,
    config: RunConfig,
    followed: ClusterMapRegistry | None,
    poll_s: float = 2.0,
    kept: Path | None = None,
) -> Iterator[Sampler]:
    """Open the sampler of a run with its cluster map; leaving the block stops the watcher.

    Args:
        data: dataset of the run.
        config: configuration of the run.
        followed: store whose current compatible map is used; None builds the run's own map.
        poll_s: seconds between polls of a store without notifications.
        kept: folder where the run's own map is kept for a resumed run; None keeps none.
    """
    now = datetime.now(UTC)
    if followed is None:
        own_map = build_required_map(data, config, now, kept)
        yield build_sampler(config.training.sampler, own_map)
        return

    build = partial(build_sampler, config.training.sampler)
    if not is_main_rank():
        yield HotSwapSampler(build)  # receives its maps from the main rank
        return
    known = hash_ids(item_id.encode() for item_id in data.item_ids)
    with watch_cluster_maps(followed, known, build, poll_s) as sampler:
        if sampler.received_map is None:
            own = build_or_open_map(data, config, now, kept)
            sampler.own_map = build_map_sampler(own, build)
        yield sampler


def require_cluster_map_sampler(config: RunConfig) -> None:
    """Raise ConfigError if the configured sampler uses no cluster map."""
    sampler = config.training.sampler
    if not isinstance(sampler, EsansConfig):
        raise ConfigError(
            f"run --follow: found sampler {sampler.name}, expected one that uses a cluster map; "
            'remove --follow, or set `[training.sampler] name = "esans"` in the --config file'
        )


def get_cluster_map(sampler: Sampler) -> ClusterMap | None:
    """Return the current cluster map of a sampler, None if it has none."""
    return sampler.clusters if isinstance(sampler, EsansSampler | HotSwapSampler) else None
