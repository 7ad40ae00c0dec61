"""Finished trials on disk: a row as soon as a trial is done, whole or not at all.

FOLDER/rows/DIGEST.json      the figures of a trial, and its configuration
FOLDER/resamples/DIGEST.npz  its recalls over draws of the same cases: intervals come from these

The row is written last: a trial without a row is not done, whatever else was left of it.
"""

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compare.trial import Figures, Recalls, Trial
from index.errors import ConfigError
from index.fsio import write_json


@dataclass(frozen=True)
class TrialStore:
    """The folder of a study's results, over as many sittings as it takes."""

    folder: Path

    def prepare(self) -> None:
        """Make the folders."""
        for name in ("rows", "resamples"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def has(self, trial: Trial) -> bool:
        """Tell whether a trial is done; one whose resamples are elsewhere is."""
        return self._row_path(trial).exists()

    def save(self, trial: Trial, figures: Figures, recalls: Recalls, now: datetime) -> None:
        """Keep a trial that is done."""
        arrays: dict[str, Any] = {
            f"recall@{count}": means.astype(np.float32) for count, means in recalls.items()
        }
        path = self._resamples_path(trial)
        beside = path.with_name(f".{path.stem}.{os.getpid()}.npz")
        np.savez(beside, **arrays)
        beside.replace(path)
        write_json(
            self._row_path(trial),
            {
                "dataset": trial.dataset,
                "method": trial.method,
                "budget": trial.budget,
                "created_at": now.isoformat(timespec="seconds"),
                "fingerprint": trial.fingerprint,
                "config": trial.config.model_dump(mode="json", exclude={"bundle", "evaluation"}),
                "figures": figures,
            },
        )

    def figures(self, trial: Trial) -> Figures | None:
        """Return a trial's figures; None where it is not done.

        Raises ConfigError if the row cannot be read.
        """
        path = self._row_path(trial)
        if not path.exists():
            return None
        try:
            row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found: Figures = row["figures"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: cannot be read as a row ({error}); remove it to run the trial again"
            ) from error
        return found

    def recalls(self, trial: Trial) -> Recalls | None:
        """Return a trial's recalls over the draws; None where they are not here."""
        path = self._resamples_path(trial)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as held:
            return {
                int(name.removeprefix("recall@")): means.astype(np.float64)
                for name, means in held.items()
            }

    def _row_path(self, trial: Trial) -> Path:
        return self.folder / "rows" / f"{trial.digest}.json"

    def _resamples_path(self, trial: Trial) -> Path:
        return self.folder / "resamples" / f"{trial.digest}.npz"
