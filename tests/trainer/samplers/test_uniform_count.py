from tests.support.sampler_contexts import context_for
from trainer.samplers.simple import UniformSampler, sample_in_batch


def test_num_encoded_is_count_for_uniform_zero_in_batch():
    context = context_for([[0], [1]], [0, 1], [0, 1], [0.5, 0.5, 0.0])
    assert UniformSampler(12)(context).num_encoded == 12
    assert sample_in_batch(context).num_encoded == 0
