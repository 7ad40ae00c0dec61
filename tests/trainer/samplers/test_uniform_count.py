from tests.support.sampler_contexts import context_for
from trainer.samplers.simple import UniformSampler, sample_in_batch


def test_uniform_tells_how_many_items_it_encoded_and_in_batch_that_it_encoded_none():
    context = context_for([[0], [1]], [0, 1], [0, 1], [0.5, 0.5, 0.0])
    assert UniformSampler(12)(context).num_encoded == 12
    assert sample_in_batch(context).num_encoded == 0
