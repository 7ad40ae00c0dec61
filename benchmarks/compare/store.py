"""Storage of finished trials.

- FOLDER/rows/DIGEST.json: metrics of a trial and its configuration
- FOLDER/resamples/DIGEST.npz: its recalls over bootstrap resamples, for intervals

The row is written last, atomically: a trial without a row is unfinished.
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
    """Folder of a study's results."""

    folder: Path

    def prepare(self) -> None:
        """Create the folders."""
        for name in ("rows", "resamples"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def has(self, trial: Trial) -> bool:
        """Return whether a trial is finished; its resamples may be missing."""
        return self._row_path(trial).exists()

    def save(self, trial: Trial, figures: Figures, recalls: Recalls, now: datetime) -> None:
        """Save a finished trial."""
        arrays: dict[str, Any] = {
            f"recall@{count}": means.astype(np.float32) for count, means in recalls.items()
        }
        path = self._resamples_path(trial)
        staged = path.with_name(f".{path.stem}.{os.getpid()}.npz")
        np.savez(staged, **arrays)
        staged.replace(path)
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
        """Return a trial's metrics; None if it is unfinished.

        Raises:
            ConfigError: The row cannot be read.
        """
        path = self._row_path(trial)
        if not path.exists():
            return None
        try:
            row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            figures: Figures = row["figures"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: cannot be read as a trial row ({error}); delete it to run the trial again"
            ) from error
        return figures

    def recalls(self, trial: Trial) -> Recalls | None:
        """Return a trial's recalls over the resamples; None if they are missing."""
        path = self._resamples_path(trial)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return {
                int(name.removeprefix("recall@")): means.astype(np.float64)
                for name, means in arrays.items()
            }

    def _row_path(self, trial: Trial) -> Path:
        return self.folder / "rows" / f"{trial.digest}.json"

    def _resamples_path(self, trial: Trial) -> Path:
        return self.folder / "resamples" / f"{trial.digest}.npz"
