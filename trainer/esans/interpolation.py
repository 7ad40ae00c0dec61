"""EDIS: virtual negatives, made between embeddings that the step has computed anyway.

No item is encoded for them. Source: the ESANS paper, EDIS. Ours: virtual rows are put back on
the unit sphere, for the towers are normalised and a shorter row would be an easier negative.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional


def interpolate_simple(firsts: Tensor, seconds: Tensor, share: Tensor) -> Tensor:
    """Mix two easy negatives of one level-1 cluster.

    firsts, seconds  [count, dim]  unit rows
    share            [count]       part of the first, 0..1
    returns          [count, dim]  unit rows

    Source: the ESANS paper, EDIS, simple interpolation.
    """
    mixed = share[:, None] * firsts + (1 - share[:, None]) * seconds
    return functional.normalize(mixed, dim=-1)


def interpolate_hard(positives: Tensor, negatives: Tensor, share: Tensor) -> Tensor:
    """Move each hard negative part of the way to its positive.

    positives  [batch, dim]         unit rows
    negatives  [batch, count, dim]  unit rows
    share      [batch, count]       part of the way: 0 stays, 1 arrives, below 0 leans away
    returns    [batch, count, dim]  unit rows

    Source: the ESANS paper, EDIS, hard interpolation, which studies shares within -0.5..1.5.
    A share of 1 is the positive itself under another name, and masks nothing: stay below it.
    """
    part = share[..., None]  # [batch, count, 1]
    mixed = part * positives[:, None] + (1 - part) * negatives
    return functional.normalize(mixed, dim=-1)


def draw_share(
    shape: tuple[int, ...], low: float, high: float, rng: Generator, device: torch.device
) -> Tensor:
    """Draw shares uniformly from low..high, of any shape."""
    return (torch.rand(shape, generator=rng) * (high - low) + low).to(device)
