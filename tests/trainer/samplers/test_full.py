import torch

from tests.support.sampler_contexts import context_for, loss_of
from trainer.samplers.simple import sample_full

SHARE = [0.4, 0.3, 0.2, 0.1, 0.0]


def test_full_contains_and_encodes_every_item_once():
    sampled = sample_full(context_for([[0], [1, 2]], [0, 1], [0, 1], SHARE))
    assert sampled.rows.tolist() == [0, 1, 2, 3, 4]
    assert sampled.num_encoded == 5


def test_full_masks_seen_items_only():
    sampled = sample_full(context_for([[0], [1, 2]], [0, 1], [0, 1], SHARE))
    assert sampled.is_masked.tolist() == [
        [True, False, False, False, False],
        [False, True, True, False, False],
    ]


def test_full_loss_is_softmax_over_catalogue():
    context = context_for([[0], [1]], [0, 1], [0, 1], SHARE)
    vectors = context.encode(torch.arange(5))
    scores = context.queries @ vectors.T / 0.1
    expected = torch.nn.functional.cross_entropy(scores, context.positive_rows)
    assert torch.allclose(loss_of(context, sample_full(context)), expected)
