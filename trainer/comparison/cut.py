"""A part of a dataset, the same for all methods: whole users, drawn by chance."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from index.errors import DatasetError
from trainer.data.dataset import Dataset, fingerprint, load_dataset
from trainer.data.histories import cases
from trainer.data.interactions import PART_NAMES, TEST, VALID, Interactions
from trainer.data.split import SplitName
from trainer.measures import LEAST_CASES


@dataclass(frozen=True)
class Cut:
    """Which data: a folder, its split, and how much of it.

    limit_interactions  None for all
    seed                of the split and of the draw
    """

    folder: Path
    limit_interactions: int | None
    split: SplitName
    seed: int


@lru_cache(maxsize=2)
def load_cut(cut: Cut) -> Dataset:
    """Load the data of a cut; a process that runs cell after cell reads it once.

    Raises DatasetError, also where fewer than LEAST_CASES would be asked: too few to measure.
    """
    data = load_dataset(cut.folder, cut.split, cut.seed)
    if cut.limit_interactions is not None:
        data = keep_some_users(data, cut.limit_interactions, cut.seed)
    faults = []
    for part in (VALID, TEST):
        count = len(cases(data.interactions, part, len(data.user_ids)).user_rows)
        if count < LEAST_CASES:
            faults.append(
                f"{count} cases in {PART_NAMES[part]}, expected at least {LEAST_CASES}: no "
                "figure is given from fewer; bring more users, or raise limit_interactions"
            )
    if faults:
        raise DatasetError(str(cut.folder), faults)
    return data


def keep_some_users(data: Dataset, limit: int, seed: int) -> Dataset:
    """Keep users in a drawn order while their interactions stay within the limit.

    The catalogue stays whole: a full ranking over fewer items would be an easier question.
    """
    old = data.interactions
    lengths = np.bincount(old.user_rows, minlength=len(data.user_ids))
    order = np.random.default_rng([seed, limit]).permutation(len(lengths))
    kept = np.sort(order[np.cumsum(lengths[order]) <= limit])
    if len(kept) == len(lengths):
        return data
    places = np.full(len(lengths), -1, dtype=np.int32)
    places[kept] = np.arange(len(kept))
    is_in = places[old.user_rows] >= 0
    interactions = Interactions(
        places[old.user_rows[is_in]], old.item_rows[is_in], old.parts[is_in], old.is_ordered
    )
    user_ids = [data.user_ids[row] for row in kept]
    note = f"cut to {len(kept):,} of {len(lengths):,} users, {is_in.sum():,} interactions"
    return replace(
        data,
        user_ids=user_ids,
        interactions=interactions,
        notes=(*data.notes, note),
        fingerprint=fingerprint(data.item_ids, user_ids, interactions, data.modalities),
    )
