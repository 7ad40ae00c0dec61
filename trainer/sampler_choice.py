"""From the sampler's name in a configuration to the sampler, and to the map that it needs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from index.cluster_map import ClusterMap
from index.clusters.store import ClusterStore
from index.errors import ConfigError
from index.ids import hash_ids
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.esans.arrivals import following
from trainer.esans.clusters import fit_cluster_map
from trainer.esans.following import Following, in_force
from trainer.esans.negatives import Esans
from trainer.samplers.batch_mix import BatchMix
from trainer.samplers.config import EsansConfig, SamplerConfig
from trainer.samplers.cross_batch import CrossBatch
from trainer.samplers.dynamic import Dynamic
from trainer.samplers.full import full
from trainer.samplers.in_batch import in_batch
from trainer.samplers.in_batch_uncorrected import in_batch_uncorrected
from trainer.samplers.interface import Sampler
from trainer.samplers.mixed import Mixed
from trainer.samplers.popularity import Popularity
from trainer.samplers.positive_mix import PositiveMix
from trainer.samplers.uniform import Uniform

SAMPLERS: dict[str, Callable[[Any], Sampler]] = {
    "in-batch": lambda _: in_batch,
    "in-batch-uncorrected": lambda _: in_batch_uncorrected,
    "full": lambda _: full,
    "uniform": lambda part: Uniform(part.count),
    "popularity": lambda part: Popularity(part.count, part.exponent),
    "mixed": lambda part: Mixed(part.count),
    "cross-batch": lambda part: CrossBatch(part.size, part.warm_up),
    "dynamic": lambda part: Dynamic(part.count, part.kept),
    "batch-mix": lambda part: BatchMix(part.count, part.batch_part, part.mix_temperature),
    "positive-mix": lambda part: PositiveMix(part.count, part.candidates, part.kept),
}


def build_sampler(config: SamplerConfig, clusters: ClusterMap | None = None) -> Sampler:
    """Return the sampler that a configuration names, new and without memory.

    clusters  of the whole catalogue, row by row; see `clusters_for`

    Raises ValueError if it is needed and not given.
    """
    if isinstance(config, EsansConfig):
        if clusters is None:
            raise ValueError(f"the sampler {config.name} needs a cluster map")
        return Esans(clusters, config)
    return SAMPLERS[config.name](config)


def clusters_for(data: Dataset, config: RunConfig, now: datetime) -> ClusterMap | None:
    """Make the cluster map of a dataset where the configured sampler draws from one."""
    if not isinstance(config.training.sampler, EsansConfig):
        return None
    return fit_cluster_map(data, config.clusters, config.seed, now)


@contextmanager
def open_sampler(
    data: Dataset, config: RunConfig, followed: ClusterStore | None, poll_s: float = 2.0
) -> Iterator[Sampler]:
    """Give the sampler of a run, new, with the map that it needs; a thread ends with the block.

    followed  the store whose current map is drawn from, where there is one that fits; None for
              the run's own map
    poll_s    seconds between two looks at it, where it does not announce itself
    """
    now = datetime.now(UTC)
    if followed is None:
        yield build_sampler(config.training.sampler, clusters_for(data, config, now))
        return

    def build(clusters: ClusterMap) -> Sampler:
        return build_sampler(config.training.sampler, clusters)

    known = hash_ids(one.encode() for one in data.item_ids)
    with following(followed, known, build, poll_s) as sampler:
        if sampler.arrived is None:
            own = fit_cluster_map(data, config.clusters, config.seed, now)
            sampler.own = in_force(own, build, own.version)
        yield sampler


def refuse_to_follow(config: RunConfig) -> None:
    """Raise ConfigError if the configured sampler draws from no map."""
    part = config.training.sampler
    if not isinstance(part, EsansConfig):
        raise ConfigError(
            f"run --follow: the sampler {part.name} draws from no cluster map, expected one "
            'that does; leave --follow out, or say `[training.sampler] name = "esans"` in the '
            "file of --config"
        )


def clusters_of(sampler: Sampler) -> ClusterMap | None:
    """Return the map that a sampler draws from now, None where it draws from none."""
    return sampler.clusters if isinstance(sampler, Esans | Following) else None
