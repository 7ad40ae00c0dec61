"""EDIS: virtual negatives, made between embeddings that the step has computed anyway.

No item is encoded for them. Source: the ESANS paper, EDIS. A mixture is shorter than a unit
row, and so an easier negative; by default it is put back on the unit sphere, which is ours.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional


def interpolate_simple(firsts: Tensor, seconds: Tensor, share: Tensor) -> Tensor:
    """Mix two easy negatives of one level-1 cluster.

    firsts, seconds  [count, dim]  unit rows
    share            [count]       part of the first, 0..1
    returns          [count, dim]  rows no longer than unit ones

    Source: the ESANS paper, EDIS, simple interpolation.
    """
    return share[:, None] * firsts + (1 - share[:, None]) * seconds


def interpolate_hard(positives: Tensor, negatives: Tensor, share: Tensor) -> Tensor:
    """Move each hard negative part of the way to its positive.

    positives  [batch, dim]         unit rows
    negatives  [batch, count, dim]  unit rows
    share      [batch, count]       part of the way: 0 stays, 1 arrives, below 0 leans away
    returns    [batch, count, dim]  rows; longer than unit ones where a share is below 0

    Source: the ESANS paper, EDIS, hard interpolation, which studies shares within -0.5..1.5.
    A share of 1 is the positive itself under another name, and masks nothing: stay below it.
    """
    part = share[..., None]  # [batch, count, 1]
    return part * positives[:, None] + (1 - part) * negatives


def normalize_virtual(rows: Tensor) -> Tensor:
    """Put rows back on the unit sphere; [..., dim] to unit rows [..., dim]."""
    return functional.normalize(rows, dim=-1)


def draw_share(
    shape: tuple[int, ...], low: float, high: float, rng: Generator, device: torch.device
) -> Tensor:
    """Draw shares uniformly from low..high, of any shape."""
    return (torch.rand(shape, generator=rng) * (high - low) + low).to(device)
