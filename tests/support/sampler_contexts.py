"""Step contexts made by hand, and training runs of a few seconds."""

import numpy as np
import torch
from torch.nn.functional import normalize

from tests.support.tiny_dataset import write_tiny_world
from trainer.checkpoint import Checkpoint
from trainer.config import validate_config
from trainer.data.dataset import load_dataset
from trainer.data.interactions import ItemLists
from trainer.loss import sampled_softmax
from trainer.samplers.base import StepContext
from trainer.seen_items import build_seen_items
from trainer.train_loop import train
from trainer.training_data import build_training_data


def unit(count, width=8, seed=0):
    """[count, width] random unit vectors with gradient."""
    vectors = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return normalize(vectors, dim=-1).requires_grad_()


def context_for(histories, user_rows, positive_rows, share, *, table=None, queries=None, step=0):
    """Step context over a table of item vectors.

    Args:
        histories: item rows that each user has seen.
        user_rows: of the batch.
        positive_rows: of the batch.
        share: of each item of the targets.
        table: [num_items, dim], item vectors.
        queries: [batch, dim].
        step: seeds the generator.
    """
    table = unit(len(share)) if table is None else table
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    item_lists = ItemLists(
        offsets, np.array([row for history in histories for row in history], np.int32)
    )
    seen = build_seen_items(item_lists, len(share), torch.device("cpu"))
    users, positives = torch.tensor(user_rows), torch.tensor(positive_rows)
    return StepContext(
        user_rows=users,
        positive_rows=positives,
        positives=table[positives],
        queries=unit(len(user_rows), seed=1) if queries is None else queries,
        batch_rows=positives.unique(),
        batch_vectors=table[positives.unique()],
        in_batch_probability=lambda rows: 1 - (1 - np.asarray(share)[rows]) ** len(positives),
        target_share=torch.tensor(share),
        encode=lambda rows: table[rows],
        is_seen=lambda rows: seen.contains(users, rows),
        step=step,
        rng=torch.Generator().manual_seed(step),
    )


def loss_of(context, negatives, log_q_share=1.0):
    return sampled_softmax(
        context.queries, context.positives, negatives, 0.1, log_q_share=log_q_share
    )


def context_with_all_seen(share):
    """Step context in which user 0 has seen every item, so that all negatives are masked."""
    items = list(range(len(share)))
    return context_for([items, [0]], [0, 1], [1, 0], share)


def config_of(sampler, **training):
    """Configuration of a short run with a sampler table."""
    return validate_config(
        {
            "towers": {"embedding_dim": 16, "history_length": 8},
            "training": {
                "sampler": sampler,
                "device": "cpu",
                "batch_size": 64,
                "temperature": 0.1,
                "learning_rate": 0.003,
                "patience": 100,
                **training,
            },
        },
        "a test",
    )


def train_tiny(folder, sampler, config):
    """Train on the planted dataset; resume from the checkpoint of the folder, if any."""
    if not (folder / "world").exists():
        write_tiny_world(folder / "world")
    data = load_dataset(folder / "world", "auto", config.seed)
    checkpoint = Checkpoint(folder / "checkpoint.safetensors", "a test")
    return train(build_training_data(data, config), sampler, config, checkpoint)
