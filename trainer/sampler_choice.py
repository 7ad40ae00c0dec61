"""From the sampler's name in a configuration to the sampler, and to the map that it needs."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from index.cluster_map import ClusterMap
from trainer.config import RunConfig
from trainer.dataset import Dataset
from trainer.esans.clusters import fit_cluster_map
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
