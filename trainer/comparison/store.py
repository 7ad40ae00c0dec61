"""Finished cells on disk: a row as soon as a cell is done, whole or not at all.

FOLDER/rows/DIGEST.json  the figures of a cell, and what it was
FOLDER/hits/DIGEST.npz   which test items were found, bit by bit; of users, so not to be shared

The row is written last: a cell without a row is not done, whatever else was left of it.
"""

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from index.errors import ConfigError
from index.files import write_json
from trainer.comparison.cell import Cell, Figures, Hits


@dataclass(frozen=True)
class Store:
    """The folder that a comparison grows in, over as many sittings as it takes."""

    folder: Path

    def prepare(self) -> None:
        """Make the folders; hits are kept out of version control."""
        for name in ("rows", "hits"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "hits" / ".gitignore").write_text("*\n", encoding="utf-8")

    def has(self, cell: Cell) -> bool:
        """Tell whether a cell is done; one whose hits are elsewhere is."""
        return self._row_path(cell).exists()

    def save(self, cell: Cell, figures: Figures, hits: Hits, now: datetime) -> None:
        """Keep a cell that is done."""
        bits: dict[str, Any] = {
            f"hit@{count}": np.packbits(one) for count, one in hits.is_hit.items()
        }
        path = self._hits_path(cell)
        beside = path.with_name(f".{path.stem}.{os.getpid()}.npz")
        np.savez_compressed(beside, target_counts=hits.target_counts, **bits)
        beside.replace(path)
        write_json(
            self._row_path(cell),
            {
                "dataset": cell.dataset,
                "method": cell.method,
                "budget": cell.budget,
                "made_at": now.isoformat(timespec="seconds"),
                "fingerprint": cell.fingerprint,
                "config": cell.config.model_dump(mode="json", exclude={"bundle", "evaluation"}),
                "figures": figures,
            },
        )

    def figures(self, cell: Cell) -> Figures | None:
        """Return a cell's figures; None where it is not done.

        Raises ConfigError if the row cannot be read.
        """
        path = self._row_path(cell)
        if not path.exists():
            return None
        try:
            row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found: Figures = row["figures"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: cannot be read as a row ({error}); remove it to run the cell again"
            ) from error
        return found

    def hits(self, cell: Cell) -> Hits | None:
        """Return a cell's hits; None where they are not here (they are not shared)."""
        path = self._hits_path(cell)
        if not path.exists():
            return None
        with np.load(path) as held:
            counts = held["target_counts"]
            total = int(counts.sum())
            is_hit = {
                int(name.removeprefix("hit@")): np.unpackbits(bits, count=total).astype(bool)
                for name, bits in held.items()
                if name.startswith("hit@")
            }
        return Hits(counts, is_hit)

    def _row_path(self, cell: Cell) -> Path:
        return self.folder / "rows" / f"{cell.digest}.json"

    def _hits_path(self, cell: Cell) -> Path:
        return self.folder / "hits" / f"{cell.digest}.npz"
