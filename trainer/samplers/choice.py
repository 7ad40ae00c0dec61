"""From the sampler's name in a configuration to the sampler."""

from trainer.config import SamplerConfig, UniformConfig
from trainer.samplers.in_batch import in_batch
from trainer.samplers.interface import Sampler
from trainer.samplers.uniform import Uniform


def build_sampler(config: SamplerConfig) -> Sampler:
    """Return the sampler that a configuration names."""
    return Uniform(config.count) if isinstance(config, UniformConfig) else in_batch
