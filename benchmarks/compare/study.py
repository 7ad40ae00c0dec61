"""Study file: methods x budgets x seeds x datasets, loaded from TOML and validated."""

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


class GeneratedShop(ConfigSection):
    """A shop of benchmarks.large_shop, generated into the dataset folder if that is missing."""

    items: int = Field(ge=1_000)
    interactions: int = Field(ge=20)
    seed: int = Field(1, ge=0)


class DatasetSource(ConfigSection):
    """A dataset folder, and how many of its interactions are used."""

    folder: str = Field(min_length=1, description="dataset folder, searched under each --data")
    limit_interactions: int | None = Field(
        None, ge=1, description="whole users are sampled up to this number of interactions"
    )
    shop: GeneratedShop | None = Field(None, description="generates the folder if it is missing")
    tuned_on: str = Field("", description="dataset whose chosen temperatures are reused")
    is_reported: bool = Field(True, description="false: only tunes temperatures for others")


class SharedConfig(ConfigSection):
    """Tables of the run configuration that all methods share."""

    data: Table = Field(default_factory=dict)
    towers: Table = Field(default_factory=dict)
    clusters: Table = Field(default_factory=dict)
    training: Table = Field(default_factory=dict)


class Method(ConfigSection):
    """A method: its changes of the run configuration, and its seeds and budgets."""

    kind: Kind = Field(
        description="fixed list: part of the reference mean; baseline: a further baseline; "
        "esans; ablation"
    )
    training: Table = Field(
        default_factory=dict, description="changes to [training], including the sampler"
    )
    clusters: Table = Field(default_factory=dict, description="changes to [clusters]")
    budget_shares: dict[str, float] = Field(
        default_factory=dict, description="sampler setting -> share of the budget: { count = 1.0 }"
    )
    varies_by_budget: bool = Field(False, description="run at every budget of the study")
    datasets: tuple[str, ...] = Field((), description="only these datasets; empty: all")
    seeds: int | None = Field(None, ge=1, le=1000, description="instead of the study's")
    temperatures: tuple[float, ...] = Field((), description="instead of the study's grid")
    temperature_of: str = Field(
        "", description="method whose chosen temperature is reused, without a grid"
    )

    @model_validator(mode="after")
    def validate_temperatures_and_budget(self) -> Self:
        """Reject a temperature outside the grid, and a budget without effect."""
        if "temperature" in self.training:
            raise ValueError("training.temperature is tuned over a grid: set temperatures instead")
        if self.varies_by_budget and not self.budget_shares:
            raise ValueError("varies_by_budget needs budget_shares: add the sampler settings")
        if self.temperature_of and self.temperatures:
            raise ValueError("temperatures and temperature_of exclude each other: set one of them")
        return self


class Study(ConfigSection):
    """Methods x budgets x seeds x datasets."""

    seeds: int = Field(5, ge=1, le=1000, description="number of seeds per method: 0, 1, 2 ...")
    temperatures: tuple[float, ...] = Field(
        (0.05, 0.07, 0.1), min_length=1, description="grid, tuned on validation with seed 0"
    )
    budget: int = Field(
        512, ge=1, description="items encoded per step, at which methods are compared"
    )
    budgets: tuple[int, ...] = Field((), description="for methods with varies_by_budget")
    references: tuple[str, ...] = Field(
        (), description="methods that all others are compared with, averaged over the datasets"
    )
    split_seed: int = Field(
        0, ge=0, description="seed of split and subset, shared by all methods and seeds"
    )
    run: SharedConfig = SharedConfig()
    datasets: dict[str, DatasetSource] = Field(min_length=1)
    methods: dict[str, Method] = Field(min_length=1)

    @model_validator(mode="after")
    def validate_names_and_budgets(self) -> Self:
        """Reject unknown names of methods and datasets, and budgets without the common one."""
        for name in self.references:
            if name not in self.methods:
                raise ValueError(f"references: {name!r} is not a method of the study")
        for name, dataset in self.datasets.items():
            tuning = self.datasets.get(dataset.tuned_on)
            if dataset.tuned_on and (tuning is None or tuning.tuned_on):
                raise ValueError(
                    f"datasets.{name}.tuned_on: {dataset.tuned_on!r} is not a dataset that is "
                    "tuned itself"
                )
        for name, method in self.methods.items():
            source = self.methods.get(method.temperature_of)
            if method.temperature_of and (source is None or source.temperature_of):
                raise ValueError(
                    f"methods.{name}.temperature_of: {method.temperature_of!r} is not a "
                    "method with its own grid"
                )
        varies = any(method.varies_by_budget for method in self.methods.values())
        if varies and self.budget not in self.budgets:
            raise ValueError(f"budgets {self.budgets} must contain budget ({self.budget})")
        return self

    @model_validator(mode="after")
    def validate_datasets_of_methods(self) -> Self:
        """Reject unknown datasets, and those on which no temperature would be chosen."""
        for name, method in self.methods.items():
            if unknown := sorted(set(method.datasets) - set(self.datasets)):
                raise ValueError(f"methods.{name}.datasets: {unknown[0]!r} is not a dataset")
            source = method.temperature_of or name
            if len(self.grid_of(source)) == 1:
                continue
            for dataset in method.datasets or self.datasets:
                tuning = self.datasets[dataset].tuned_on or dataset
                if source not in self.methods_on(tuning):
                    raise ValueError(
                        f"methods.{source}.datasets: add {tuning!r}, because methods.{name} on "
                        f"{dataset!r} has the temperature chosen there"
                    )
        return self

    def methods_on(self, dataset: str) -> list[str]:
        """Return the methods that run on a dataset."""
        return [
            name
            for name, method in self.methods.items()
            if not method.datasets or dataset in method.datasets
        ]

    def grid_of(self, name: str) -> tuple[float, ...]:
        """Return a method's temperature grid; empty if it reuses another's temperature."""
        method = self.methods[name]
        return () if method.temperature_of else method.temperatures or self.temperatures

    def budgets_of(self, name: str) -> tuple[int | None, ...]:
        """Return a method's budgets; (None,) if it has no budget_shares."""
        method = self.methods[name]
        if not method.budget_shares:
            return (None,)
        return self.budgets if method.varies_by_budget else (self.budget,)

    def seeds_of(self, name: str) -> range:
        """Return a method's seeds."""
        return range(self.methods[name].seeds or self.seeds)

    def config_of(self, name: str, budget: int | None, temperature: float, seed: int) -> RunConfig:
        """Build the configuration of one trial; raises ConfigError with the method's name."""
        method, shared = self.methods[name], self.run
        training = shared.training | method.training | {"temperature": temperature}
        if budget is not None:
            counts = {
                key: max(1, round(share * budget)) for key, share in method.budget_shares.items()
            }
            training["sampler"] = training.get("sampler", {}) | counts
        values = {
            "seed": seed,
            "data": shared.data,
            "towers": shared.towers,
            "clusters": shared.clusters | method.clusters,
            "training": training,
        }
        return validate_config(values, f"methods.{name}, budget {budget}")


def read_study(path: Path) -> Study:
    """Load a study file and validate the configuration of every trial.

    Raises:
        ConfigError: The file is invalid; lists all errors.
    """
    try:
        study = Study.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(
            f"{path}: is not a valid study\n" + "\n".join(_lines_of(error)) + "\n"
            "see `python -m benchmarks.compare run --help` for an example"
        ) from error
    errors = list(_config_errors(study))
    if errors:
        raise ConfigError(f"{path}: invalid trials\n" + "\n".join(errors))
    return study


def _lines_of(error: ValidationError) -> Iterator[str]:
    for details in error.errors(include_url=False):
        location = ".".join(str(key) for key in details["loc"]) or "the study"
        yield f"  - {location}: {details['msg']}"


def _config_errors(study: Study) -> Iterator[str]:
    """Build the configuration of every method, budget and temperature; yield the errors."""
    for name in study.methods:
        for budget in study.budgets_of(name):
            for temperature in study.grid_of(name) or study.temperatures:
                try:
                    study.config_of(name, budget, temperature, seed=0)
                except ConfigError as error:
                    yield str(error)
                    break
