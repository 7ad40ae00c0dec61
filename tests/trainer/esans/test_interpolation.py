import math

import pytest
import torch

from trainer.esans.interpolation import (
    interpolate_hard,
    interpolate_simple,
    normalize_virtual,
    sample_alpha,
)

EAST, NORTH = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
HALF = math.sqrt(0.5)


def test_interpolate_simple_half_is_midpoint():
    mixed = interpolate_simple(EAST[None], NORTH[None], torch.tensor([0.5]))
    assert mixed[0].tolist() == [0.5, 0.5]
    assert normalize_virtual(mixed)[0].tolist() == pytest.approx([HALF, HALF])


def test_interpolate_simple_alpha_1_is_first_0_is_second():
    pair = EAST.expand(2, 2), NORTH.expand(2, 2)
    mixed = interpolate_simple(*pair, torch.tensor([1.0, 0.0]))
    assert mixed.tolist() == [[1, 0], [0, 1]]


def test_interpolate_hard_alpha_zero_is_negative():
    alphas = torch.tensor([[0.0, 0.5, -1.0]])
    moved = interpolate_hard(EAST[None], NORTH.expand(1, 3, 2), alphas)[0]
    assert moved[0].tolist() == [0, 1]
    assert moved[1].tolist() == [0.5, 0.5]
    assert moved[2].tolist() == [-1, 2]


def test_virtual_vectors_have_unit_norm_and_gradient():
    ends = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    ends = torch.nn.functional.normalize(ends, dim=-1).requires_grad_()
    moved = normalize_virtual(interpolate_hard(ends[0], ends[1][:, None], torch.full((4, 1), 0.3)))
    assert moved.norm(dim=-1).flatten().tolist() == pytest.approx([1] * 4)
    moved.sum().backward()
    assert (ends.grad.norm(dim=-1) > 0).all()


def test_sample_alpha_fills_range_and_follows_rng():
    samples = [
        sample_alpha((1000,), -0.5, 0.5, torch.Generator().manual_seed(7), torch.device("cpu"))
        for _ in range(2)
    ]
    assert torch.equal(*samples)
    assert -0.5 <= samples[0].min() < -0.48
    assert 0.48 < samples[0].max() < 0.5
