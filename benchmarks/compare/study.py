"""A study: methods x budgets x seeds x datasets, read from a plan and validated at once."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from index.errors import ConfigError
from trainer.config import RunConfig, validate_config
from trainer.samplers.config import ConfigSection

Kind = Literal["fixed list", "baseline", "esans", "ablation"]
Table = dict[str, Any]


class DatasetSource(ConfigSection):
    """A dataset: where it is, and how much of it is used."""

    folder: str = Field(min_length=1, description="of the dataset, sought under each --data")
    limit_interactions: int | None = Field(
        None, ge=1, description="whole users are drawn, seeded, until so many are reached"
    )


class SharedConfig(ConfigSection):
    """What all methods share: tables of the run configuration."""

    data: Table = Field(default_factory=dict)
    towers: Table = Field(default_factory=dict)
    clusters: Table = Field(default_factory=dict)
    training: Table = Field(default_factory=dict)


class Method(ConfigSection):
    """One method: what of a run it changes, and how often it is run."""

    kind: Kind = Field(
        description="fixed list: one of those whose mean is a reference; baseline: a further "
        "row; esans; ablation"
    )
    training: Table = Field(
        default_factory=dict, description="changes to [training], the sampler's table in it"
    )
    clusters: Table = Field(default_factory=dict, description="changes to [clusters]")
    budget_shares: dict[str, float] = Field(
        default_factory=dict,
        description="setting of the sampler -> its part of the budget: { count = 1.0 }",
    )
    varies_by_budget: bool = Field(False, description="run at every budget of the plan")
    seeds: int | None = Field(None, ge=1, le=1000, description="instead of the plan's")
    temperatures: tuple[float, ...] = Field((), description="instead of the plan's grid")
    temperature_of: str = Field(
        "", description="a method whose chosen temperature is taken over, without a grid"
    )

    @model_validator(mode="after")
    def validate_temperatures_and_budget(self) -> Self:
        """Refuse a temperature beside the grid, and a budget that sets nothing."""
        if "temperature" in self.training:
            raise ValueError("training.temperature is chosen from the grid: set temperatures")
        if self.varies_by_budget and not self.budget_shares:
            raise ValueError("varies_by_budget needs budget_shares: what does a budget set?")
        if self.temperature_of and self.temperatures:
            raise ValueError("give temperatures or temperature_of, not both")
        return self


class Study(ConfigSection):
    """Methods x budgets x seeds x datasets."""

    seeds: int = Field(5, ge=1, le=1000, description="runs of each method: 0, 1, 2 ...")
    temperatures: tuple[float, ...] = Field(
        (0.05, 0.07, 0.1), min_length=1, description="the grid, judged on validation by seed 0"
    )
    budget: int = Field(
        512, ge=1, description="items encoded a step, at which methods are compared"
    )
    budgets: tuple[int, ...] = Field((), description="for the methods that vary by budget")
    split_seed: int = Field(
        0, ge=0, description="of split and subset: the same data for all methods and seeds"
    )
    run: SharedConfig = SharedConfig()
    datasets: dict[str, DatasetSource] = Field(min_length=1)
    methods: dict[str, Method] = Field(min_length=1)

    @model_validator(mode="after")
    def validate_references(self) -> Self:
        """Refuse a temperature of no method, and budgets without the one compared at."""
        for name, method in self.methods.items():
            source = self.methods.get(method.temperature_of)
            if method.temperature_of and (source is None or source.temperature_of):
                raise ValueError(
                    f"methods.{name}.temperature_of: {method.temperature_of!r} is no method "
                    "with a grid of its own"
                )
        varies = any(method.varies_by_budget for method in self.methods.values())
        if varies and self.budget not in self.budgets:
            raise ValueError(f"budgets {self.budgets} must contain budget ({self.budget})")
        return self

    def grid_of(self, name: str) -> tuple[float, ...]:
        """Return the temperatures that a method is tried with; none if it takes another's."""
        method = self.methods[name]
        return () if method.temperature_of else method.temperatures or self.temperatures

    def budgets_of(self, name: str) -> tuple[int | None, ...]:
        """Return the budgets that a method is run at; (None,) if it has none to set."""
        method = self.methods[name]
        if not method.budget_shares:
            return (None,)
        return self.budgets if method.varies_by_budget else (self.budget,)

    def seeds_of(self, name: str) -> range:
        """Return the seeds that a method is run with."""
        return range(self.methods[name].seeds or self.seeds)

    def config_of(self, name: str, budget: int | None, temperature: float, seed: int) -> RunConfig:
        """Build one run's configuration; raises ConfigError, naming the method."""
        method, common = self.methods[name], self.run
        training = common.training | method.training | {"temperature": temperature}
        if budget is not None:
            counts = {
                key: max(1, round(share * budget)) for key, share in method.budget_shares.items()
            }
            training["sampler"] = training.get("sampler", {}) | counts
        values = {
            "seed": seed,
            "data": common.data,
            "towers": common.towers,
            "clusters": common.clusters | method.clusters,
            "training": training,
        }
        return validate_config(values, f"methods.{name}, budget {budget}")


def read_study(path: Path) -> Study:
    """Read a plan and try the configuration of every run in it.

    Raises ConfigError, naming the file and everything at fault.
    """
    try:
        study = Study.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(
            f"{path}: cannot be used as a plan\n" + "\n".join(_lines_of(error)) + "\n"
            "see `python -m benchmarks.compare run --help` for an example"
        ) from error
    faults = list(_faults_of(study))
    if faults:
        raise ConfigError(f"{path}: runs that cannot be\n" + "\n".join(faults))
    return study


def _lines_of(error: ValidationError) -> Iterator[str]:
    for one in error.errors(include_url=False):
        place = ".".join(str(step) for step in one["loc"]) or "the plan"
        yield f"  - {place}: {one['msg']}"


def _faults_of(study: Study) -> Iterator[str]:
    """Try every method at every budget and temperature."""
    for name in study.methods:
        for budget in study.budgets_of(name):
            for temperature in study.grid_of(name) or study.temperatures:
                try:
                    study.config_of(name, budget, temperature, seed=0)
                except ConfigError as error:
                    yield str(error)
                    break
