"""Which cells a plan has, in which order: temperatures first, by one seed; then all seeds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from index.errors import ConfigError
from trainer.comparison.cell import Cell
from trainer.comparison.cut import Cut, load_cut
from trainer.comparison.plan import Plan
from trainer.comparison.store import Store
from trainer.config import DataConfig


@dataclass(frozen=True)
class World:
    """A dataset of the plan, found and read."""

    cut: Cut
    fingerprint: str
    words: str


def find_worlds(plan: Plan, bases: list[Path]) -> dict[str, World]:
    """Find and read every dataset of the plan.

    bases  folders that a dataset's folder is sought in, in this order; none: the current one

    Raises ConfigError naming every folder that is nowhere; DatasetError.
    """
    found = {name: _find(source.folder, bases) for name, source in plan.datasets.items()}
    absent = [plan.datasets[name].folder for name, folder in found.items() if folder is None]
    if absent:
        places = ", ".join(str(base) for base in bases) or "the current folder"
        raise ConfigError(
            f"datasets not found: {', '.join(absent)}; sought in {places}; give --data with "
            "the folder that holds them"
        )
    split = DataConfig.model_validate(plan.run.data).split
    worlds = {}
    for name, folder in found.items():
        limit = plan.datasets[name].limit_interactions
        assert folder is not None  # told above
        cut = Cut(folder, limit, split, plan.split_seed)
        data = load_cut(cut)
        words = (
            f"{len(data.user_ids):,} users, {len(data.item_ids):,} items, "
            f"{len(data.interactions.parts):,} interactions; split: {data.split}"
        )
        worlds[name] = World(cut, data.fingerprint, words)
    return worlds


def _find(folder: str, bases: list[Path]) -> Path | None:
    places = (base / folder for base in bases or [Path()])
    return next((place for place in places if place.is_dir()), None)


@dataclass(frozen=True)
class Schedule:
    """The cells of a plan on the worlds that were found, and what of them is decided."""

    plan: Plan
    worlds: Mapping[str, World]
    store: Store

    def tuning_cells(self) -> Iterator[Cell]:
        """Yield the cells that temperatures are chosen by; none where there is no choice."""
        for dataset in self.worlds:
            for name in self.plan.methods:
                grid = self.plan.grid_of(name)
                if len(grid) > 1:
                    yield from self._grid_cells(dataset, name)

    def seed_cells(self) -> Iterator[Cell]:
        """Yield the cells that the tables are made of, as far as temperatures are chosen.

        By seed: after each round, all methods can be compared.
        """
        most = max(len(self.plan.seeds_of(name)) for name in self.plan.methods)
        for seed in range(most):
            for dataset in self.worlds:
                for name in self.plan.methods:
                    for budget in self.plan.budgets_of(name):
                        if seed in self.plan.seeds_of(name):
                            yield from self.cells_of(dataset, name, budget)[seed : seed + 1]

    def cells_of(self, dataset: str, name: str, budget: int | None) -> list[Cell]:
        """Return every seed's cell, at the chosen temperature; none before there is one."""
        temperature = self.temperature_of(dataset, name)
        if temperature is None:
            return []
        seeds = self.plan.seeds_of(name)
        return [self._cell(dataset, name, budget, temperature, seed) for seed in seeds]

    def temperature_of(self, dataset: str, name: str) -> float | None:
        """Return the temperature of the best validation recall@50; None while cells lack.

        Chosen at the plan's budget, and kept for the others.
        """
        name = self.plan.methods[name].temperature_of or name
        grid = self.plan.grid_of(name)
        if len(grid) == 1:
            return grid[0]
        recalls = []
        for cell in self._grid_cells(dataset, name):
            figures = self.store.figures(cell)
            if figures is None:
                return None
            recalls.append(float(figures["validation_recall@50"] or 0))
        return grid[recalls.index(max(recalls))]

    def _grid_cells(self, dataset: str, name: str) -> list[Cell]:
        budget = self.plan.budget if self.plan.methods[name].budget_shares else None
        grid = self.plan.grid_of(name)
        return [self._cell(dataset, name, budget, temperature, 0) for temperature in grid]

    def _cell(
        self, dataset: str, name: str, budget: int | None, temperature: float, seed: int
    ) -> Cell:
        world = self.worlds[dataset]
        return Cell(
            dataset=dataset,
            method=name,
            budget=budget,
            config=self.plan.config_of(name, budget, temperature, seed),
            cut=world.cut,
            fingerprint=world.fingerprint,
            reads_map=self.plan.methods[name].kind in ("esans", "ablation"),
        )
