"""What the trainer's tests share: small runs, lists as histories, a step's context."""

import numpy as np
import torch

from trainer.config import check_config
from trainer.data.interactions import ItemLists
from trainer.samplers.base import StepContext
from trainer.seen_items import build_seen_items

WIDTH, LENGTH = 16, 8


def tiny_config(sections=None, **training):
    """A run of seconds; `training` changes that section, `sections` whole other ones."""
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
            "weight_decay": 0.0,
            "patience": 2,
        }
        | training,
    }
    return check_config(values | (sections or {}), "a test")


def as_histories(lists):
    """Lists of item rows, oldest first, as the trainer holds them."""
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return ItemLists(offsets, np.array([row for one in lists for row in one], np.int32))


def unit(rows, seed=0, width=WIDTH):
    """[rows, width] random unit rows."""
    made = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(made, dim=-1)


def context_for(taken, user_rows, positive_rows, item_count, target_share=None, seed=0):
    """A step's context over a table of unit item vectors; `taken` lists each user's items."""
    table = unit(item_count)
    known = build_seen_items(as_histories(taken), item_count, torch.device("cpu"))
    users, positives = torch.tensor(user_rows), torch.tensor(positive_rows)
    share = torch.full((item_count,), 1 / item_count) if target_share is None else target_share
    return StepContext(
        user_rows=users,
        positive_rows=positives,
        positives=table[positives],
        queries=unit(len(user_rows), seed=1),
        target_share=share,
        encode=lambda rows: table[rows],
        is_seen=lambda rows: known.of(users, rows),
        step=seed,
        rng=torch.Generator().manual_seed(seed),
    )
