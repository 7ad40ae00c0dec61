"""Helpers for tests of the trainer: small configurations, histories and step contexts."""

import numpy as np
import torch

from trainer.config import validate_config
from trainer.data.interactions import ItemLists
from trainer.samplers.base import StepContext
from trainer.seen_items import build_seen_items

WIDTH, LENGTH = 16, 8


def tiny_config(sections=None, **training):
    """A configuration that trains in seconds; `training` and `sections` override it."""
    values = {
        "towers": {
            "embedding_dim": WIDTH,
            "history_length": LENGTH,
            "id_dropout": 0.1,
            "id_init_std": 0.2,
        },
        "training": {
            "device": "cpu",
            "batch_size": 64,
            "epochs": 4,
            "temperature": 0.1,
            "learning_rate": 0.003,
            "dense_weight_decay": 0.0,
            "sampler": {"name": "in-batch"},  # needs no cluster map
            "patience": 2,
        }
        | training,
    }
    return validate_config(values | (sections or {}), "a test")


def as_histories(lists):
    """Build the CSR lists of item rows, oldest first."""
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return ItemLists(offsets, np.array([row for rows in lists for row in rows], np.int32))


def unit(rows, seed=0, width=WIDTH):
    """Random unit vectors [rows, width]."""
    vectors = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


def context_for(taken, user_rows, positive_rows, item_count, target_share=None, seed=0):
    """A step context over a table of unit item vectors; `taken` lists each user's items."""
    table = unit(item_count)
    seen = build_seen_items(as_histories(taken), item_count, torch.device("cpu"))
    users, positives = torch.tensor(user_rows), torch.tensor(positive_rows)
    share = torch.full((item_count,), 1 / item_count) if target_share is None else target_share
    return StepContext(
        user_rows=users,
        positive_rows=positives,
        positives=table[positives],
        queries=unit(len(user_rows), seed=1),
        batch_rows=positives.unique(),
        batch_vectors=table[positives.unique()],
        in_batch_probability=lambda rows: 1 - (1 - share.numpy()[rows]) ** len(positives),
        target_share=share,
        encode=lambda rows: table[rows],
        is_seen=lambda rows: seen.contains(users, rows),
        step=seed,
        rng=torch.Generator().manual_seed(seed),
    )
