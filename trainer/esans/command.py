"""`python -m trainer clusters`: a cluster map alone, made as a run makes it, and described."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from index.cluster_files import save_cluster_map
from trainer.config import RunConfig
from trainer.dataset import load_dataset
from trainer.esans.clusters import fit_cluster_map
from trainer.esans.columns import category_column
from trainer.esans.description import describe


def make_and_describe(
    config: RunConfig, folder: Path, out: Path | None, category: str | None
) -> str:
    """Make the map of a dataset folder, save it where `out` says, return what to tell.

    Raises DatasetError; ConfigError for a modality or a category column that is not there.
    """
    torch.set_num_threads(config.training.threads)
    data = load_dataset(folder, config.data.split, config.seed)
    category_column(
        data.attributes, category
    )  # a misspelt one is told before the work, not after
    found = fit_cluster_map(data, config.clusters, config.seed, datetime.now(UTC))
    told = describe(found, data, category, np.random.default_rng(config.seed))
    if out is None:
        return told
    save_cluster_map(found, out)
    return f"{told}\n\nsaved to {out}"
