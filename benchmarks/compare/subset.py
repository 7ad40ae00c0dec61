"""Datasets of a study: located, loaded and reduced to a sample of whole users."""

import shutil
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.compare.study import DatasetSource, Study
from benchmarks.large_shop import make_shop
from index.errors import ConfigError, DatasetError
from trainer.config import DataConfig
from trainer.data.dataset import Dataset, fingerprint, load_dataset
from trainer.data.interactions import PART_NAMES, TEST, VALID, Interactions, build_cases
from trainer.data.split import SplitName
from trainer.metrics import MIN_CASES


@dataclass(frozen=True)
class Subset:
    """A dataset folder, its split, and how many interactions are used.

    Attributes:
        limit_interactions: None for all.
        seed: Of the split and of the user sample.
    """

    folder: Path
    limit_interactions: int | None
    split: SplitName
    seed: int


@dataclass(frozen=True)
class StudyDataset:
    """A loaded dataset of the study."""

    subset: Subset
    fingerprint: str
    summary: str


def find_datasets(study: Study, bases: list[Path]) -> dict[str, StudyDataset]:
    """Locate and load every dataset of the study; generate the shops that are missing.

    Args:
        study: The study.
        bases: Folders to search, in this order; the current folder if empty. Shops are generated
            in the first.

    Raises:
        ConfigError: Some folders do not exist; lists all of them.
        DatasetError: A dataset is invalid.
    """
    for source in study.datasets.values():
        generate_missing(source, bases or [Path()])
    folders = {
        name: [folder for base in bases or [Path()] if (folder := base / source.folder).is_dir()]
        for name, source in study.datasets.items()
    }
    missing = [study.datasets[name].folder for name, matches in folders.items() if not matches]
    if missing:
        searched = ", ".join(str(base) for base in bases) or "the current folder"
        raise ConfigError(
            f"datasets not found: {', '.join(missing)}; searched in {searched}; set --data to "
            "the folder that contains them"
        )
    split = DataConfig.model_validate(study.run.data).split
    datasets = {}
    for name, matches in folders.items():
        limit = study.datasets[name].limit_interactions
        subset = Subset(matches[0], limit, split, study.split_seed)
        data = load_subset(subset)
        summary = (
            f"{len(data.user_ids):,} users, {len(data.item_ids):,} items, "
            f"{len(data.interactions.parts):,} interactions; split: {data.split}"
        )
        datasets[name] = StudyDataset(subset, data.fingerprint, summary)
    return datasets


def generate_missing(source: DatasetSource, bases: list[Path]) -> None:
    """Generate the shop of a dataset that is in none of the folders."""
    if source.shop is None or any((base / source.folder).is_dir() for base in bases):
        return
    folder = bases[0] / source.folder
    partial = folder.with_name(folder.name + ".partial")  # an interrupted shop is never used
    shutil.rmtree(partial, ignore_errors=True)
    make_shop(partial, source.shop.items, source.shop.interactions, source.shop.seed)
    partial.rename(folder)


@lru_cache(maxsize=2)
def load_subset(subset: Subset) -> Dataset:
    """Load a subset, cached for consecutive trials of a process.

    Raises:
        DatasetError: The dataset is invalid or has fewer than MIN_CASES cases.
    """
    data = load_dataset(subset.folder, subset.split, subset.seed)
    if subset.limit_interactions is not None:
        data = sample_users(data, subset.limit_interactions, subset.seed)
    errors = []
    for part in (VALID, TEST):
        count = len(build_cases(data.interactions, part, len(data.user_ids)).user_rows)
        if count < MIN_CASES:
            errors.append(
                f"{count} cases in {PART_NAMES[part]}, expected at least {MIN_CASES}; "
                "provide more users or raise limit_interactions"
            )
    if errors:
        raise DatasetError(str(subset.folder), errors)
    return data


def sample_users(data: Dataset, limit: int, seed: int) -> Dataset:
    """Keep users in random order while their interactions stay within the limit.

    The catalogue stays complete: ranking fewer items would be an easier task.
    """
    old = data.interactions
    lengths = np.bincount(old.user_rows, minlength=len(data.user_ids))
    order = np.random.default_rng([seed, limit]).permutation(len(lengths))
    kept = np.sort(order[np.cumsum(lengths[order]) <= limit])
    if len(kept) == len(lengths):
        return data
    new_rows = np.full(len(lengths), -1, dtype=np.int32)
    new_rows[kept] = np.arange(len(kept))
    is_kept = new_rows[old.user_rows] >= 0
    interactions = Interactions(
        new_rows[old.user_rows[is_kept]], old.item_rows[is_kept], old.parts[is_kept], old.is_ordered
    )
    user_ids = [data.user_ids[row] for row in kept]
    note = f"reduced to {len(kept):,} of {len(lengths):,} users, {is_kept.sum():,} interactions"
    return replace(
        data,
        user_ids=user_ids,
        interactions=interactions,
        notes=(*data.notes, note),
        fingerprint=fingerprint(data.item_ids, user_ids, interactions, data.modalities),
    )
