"""From the sampler's name in a configuration to the sampler."""

from collections.abc import Callable
from typing import Any

from trainer.samplers.batch_mix import BatchMix
from trainer.samplers.config import SamplerConfig
from trainer.samplers.cross_batch import CrossBatch
from trainer.samplers.dynamic import Dynamic
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
    "uniform": lambda part: Uniform(part.count),
    "popularity": lambda part: Popularity(part.count, part.exponent),
    "mixed": lambda part: Mixed(part.count),
    "cross-batch": lambda part: CrossBatch(part.size, part.warm_up),
    "dynamic": lambda part: Dynamic(part.count, part.kept),
    "batch-mix": lambda part: BatchMix(part.count, part.batch_part, part.mix_temperature),
    "positive-mix": lambda part: PositiveMix(part.count, part.candidates, part.kept),
}


def build_sampler(config: SamplerConfig) -> Sampler:
    """Return the sampler that a configuration names, new and without memory."""
    return SAMPLERS[config.name](config)
