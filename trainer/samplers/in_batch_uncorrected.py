"""The other positives of the batch, taken as they come: the bias that others correct."""

from dataclasses import replace

import torch

from trainer.samplers.in_batch import in_batch
from trainer.samplers.interface import Context, Negatives


def in_batch_uncorrected(context: Context) -> Negatives:
    """Draw as `in_batch` does, and tell no log q: popular items are pushed away too hard."""
    drawn = in_batch(context)
    return replace(drawn, log_q=torch.zeros_like(drawn.log_q), positive_log_q=None)
