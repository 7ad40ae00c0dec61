"""Schedule of a study: temperature tuning with one seed first, then all seeds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.compare.store import TrialStore
from benchmarks.compare.study import Study
from benchmarks.compare.subset import StudyDataset
from benchmarks.compare.trial import Trial


@dataclass(frozen=True)
class Schedule:
    """Trials of a study on its datasets, as far as temperatures are chosen."""

    study: Study
    datasets: Mapping[str, StudyDataset]
    store: TrialStore

    def tuning_trials(self) -> Iterator[Trial]:
        """Yield the trials of temperature tuning; none for grids of one temperature."""
        for dataset in self.datasets:
            if self.study.datasets[dataset].tuned_on:
                continue
            for name in self.study.methods_on(dataset):
                if len(self.study.grid_of(name)) > 1:
                    yield from self._grid_trials(dataset, name)

    def seed_trials(self) -> Iterator[Trial]:
        """Yield the trials of the tables whose temperature is chosen.

        Ordered by seed, so that all methods can be compared after each round.
        """
        for seed in range(max(len(self.study.seeds_of(name)) for name in self.study.methods)):
            for dataset, name, budget in self.lines():
                if seed in self.study.seeds_of(name):
                    yield from self.trials_of(dataset, name, budget)[seed : seed + 1]

    def lines(self) -> Iterator[tuple[str, str, int | None]]:
        """Yield every reported dataset, method and budget: a line of the tables."""
        for dataset in self.reported:
            for name in self.study.methods_on(dataset):
                for budget in self.study.budgets_of(name):
                    yield dataset, name, budget

    @property
    def reported(self) -> dict[str, StudyDataset]:
        """Return the datasets of the tables."""
        sources = self.study.datasets
        return {name: data for name, data in self.datasets.items() if sources[name].is_reported}

    def trials_of(self, dataset: str, name: str, budget: int | None) -> list[Trial]:
        """Return one trial per seed at the chosen temperature; empty before it is chosen."""
        temperature = self.temperature_of(dataset, name)
        if temperature is None:
            return []
        return [
            self._trial(dataset, name, budget, temperature, seed)
            for seed in self.study.seeds_of(name)
        ]

    def temperature_of(self, dataset: str, name: str) -> float | None:
        """Return the temperature with the best validation recall@50; None while trials are missing.

        It is chosen at the study's budget and used for all budgets, on the dataset itself or on
        the one that it is tuned on.
        """
        dataset = self.study.datasets[dataset].tuned_on or dataset
        name = self.study.methods[name].temperature_of or name
        grid = self.study.grid_of(name)
        if len(grid) == 1:
            return grid[0]
        recalls = []
        for trial in self._grid_trials(dataset, name):
            figures = self.store.figures(trial)
            if figures is None:
                return None
            recalls.append(float(figures["validation_recall@50"] or 0))
        return grid[recalls.index(max(recalls))]

    def _grid_trials(self, dataset: str, name: str) -> list[Trial]:
        budget = self.study.budget if self.study.methods[name].budget_shares else None
        grid = self.study.grid_of(name)
        return [self._trial(dataset, name, budget, temperature, 0) for temperature in grid]

    def _trial(
        self, dataset: str, name: str, budget: int | None, temperature: float, seed: int
    ) -> Trial:
        study_dataset = self.datasets[dataset]
        return Trial(
            dataset=dataset,
            method=name,
            budget=budget,
            config=self.study.config_of(name, budget, temperature, seed),
            subset=study_dataset.subset,
            fingerprint=study_dataset.fingerprint,
        )
