"""EDIS: virtual negatives interpolated between embeddings that the step has computed anyway.

No item is encoded for them. Source: ESANS (Xing et al., WWW 2025), EDIS. An interpolated vector
is shorter than a unit vector and thus an easier negative; normalising it is our default.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional


def interpolate_simple(firsts: Tensor, seconds: Tensor, alpha: Tensor) -> Tensor:
    """Interpolate between two easy negatives of one cluster: v = a * e_j + (1 - a) * e_k.

    Args:
        firsts: [count, dim], e_j, unit norm.
        seconds: [count, dim], e_k, unit norm.
        alpha: [count], a in 0..1, the weight of the first.

    Returns:
        [count, dim], norm at most 1.

    Source: ESANS (Xing et al., WWW 2025), EDIS, simple interpolation.
    """
    return alpha[:, None] * firsts + (1 - alpha[:, None]) * seconds


def interpolate_hard(positives: Tensor, negatives: Tensor, alpha: Tensor) -> Tensor:
    """Interpolate between hard negatives and their positives: v = b * e_i + (1 - b) * e_h.

    Args:
        positives: [batch, dim], e_i, unit norm.
        negatives: [batch, count, dim], e_h, unit norm.
        alpha: [batch, count], b; 0 gives the negative, 1 the positive, below 0 extrapolates
            beyond the negative.

    Returns:
        [batch, count, dim]; the norm exceeds 1 where alpha is below 0.

    Source: ESANS (Xing et al., WWW 2025), EDIS, hard interpolation, studied for b within
    -0.5..1.5. Keep b below 1, where the virtual negative is the positive itself, unmasked.
    """
    weight = alpha[..., None]  # [batch, count, 1]
    return weight * positives[:, None] + (1 - weight) * negatives


def normalize_virtual(vectors: Tensor) -> Tensor:
    """Scale vectors [..., dim] to unit norm."""
    return functional.normalize(vectors, dim=-1)


def sample_alpha(
    shape: tuple[int, ...], low: float, high: float, rng: Generator, device: torch.device
) -> Tensor:
    """Sample interpolation weights of any shape from U(low, high)."""
    return (torch.rand(shape, generator=rng) * (high - low) + low).to(device)
