"""The datasets of a study: found, read, and cut to whole users drawn at random."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.compare.study import Study
from index.errors import ConfigError, DatasetError
from trainer.config import DataConfig
from trainer.data.dataset import Dataset, fingerprint, load_dataset
from trainer.data.interactions import PART_NAMES, TEST, VALID, Interactions, build_cases
from trainer.data.split import SplitName
from trainer.metrics import MIN_CASES


@dataclass(frozen=True)
class Subset:
    """A dataset folder, its split, and how much of it is used.

    limit_interactions  None for all
    seed                of the split and of the sampled users
    """

    folder: Path
    limit_interactions: int | None
    split: SplitName
    seed: int


@dataclass(frozen=True)
class StudyDataset:
    """A dataset of the study, found and read."""

    subset: Subset
    fingerprint: str
    summary: str


def find_datasets(study: Study, bases: list[Path]) -> dict[str, StudyDataset]:
    """Find and read every dataset of the study.

    bases  folders that a dataset's folder is sought in, in this order; none: the current one

    Raises ConfigError naming every folder that is nowhere; DatasetError.
    """
    places = {
        name: [place for base in bases or [Path()] if (place := base / source.folder).is_dir()]
        for name, source in study.datasets.items()
    }
    absent = [study.datasets[name].folder for name, found in places.items() if not found]
    if absent:
        sought = ", ".join(str(base) for base in bases) or "the current folder"
        raise ConfigError(
            f"datasets not found: {', '.join(absent)}; sought in {sought}; give --data with "
            "the folder that holds them"
        )
    split = DataConfig.model_validate(study.run.data).split
    datasets = {}
    for name, found in places.items():
        limit = study.datasets[name].limit_interactions
        subset = Subset(found[0], limit, split, study.split_seed)
        data = load_subset(subset)
        summary = (
            f"{len(data.user_ids):,} users, {len(data.item_ids):,} items, "
            f"{len(data.interactions.parts):,} interactions; split: {data.split}"
        )
        datasets[name] = StudyDataset(subset, data.fingerprint, summary)
    return datasets


@lru_cache(maxsize=2)
def load_subset(subset: Subset) -> Dataset:
    """Load a subset; a process that runs trial after trial reads it once.

    Raises DatasetError, also where fewer than MIN_CASES would be asked: too few to measure.
    """
    data = load_dataset(subset.folder, subset.split, subset.seed)
    if subset.limit_interactions is not None:
        data = keep_some_users(data, subset.limit_interactions, subset.seed)
    faults = []
    for part in (VALID, TEST):
        count = len(build_cases(data.interactions, part, len(data.user_ids)).user_rows)
        if count < MIN_CASES:
            faults.append(
                f"{count} cases in {PART_NAMES[part]}, expected at least {MIN_CASES}: no "
                "figure is given from fewer; bring more users, or raise limit_interactions"
            )
    if faults:
        raise DatasetError(str(subset.folder), faults)
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
