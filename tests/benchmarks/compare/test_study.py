from pathlib import Path

import pytest

from benchmarks.compare.study import read_study
from index.errors import ConfigError
from tests.support.studies import DATASET, HEAD, IN_BATCH, TINY, write_study

STUDIES = Path(__file__).parents[3] / "benchmarks" / "studies"


def changed(old, new):
    assert old in TINY
    return TINY.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("seeds = 2", "sedes = 2"), r"sedes: Extra inputs are not permitted"),
        (changed("seeds = 2", "seeds = 0"), r"seeds: .*greater than or equal to 1"),
        (HEAD + DATASET + IN_BATCH.replace("fixed list", "other"), r"in-batch\.kind: .*'esans'"),
        (HEAD + IN_BATCH, r"datasets: Field required"),
        (HEAD + DATASET, r"methods: Field required"),
        (changed("epochs = 1", "epoch = 1"), r"methods\.in-batch.*\n.*training\.epoch: Extra"),
        (
            changed('"uniform" }', '"uniformly" }'),
            r"methods\.uniform, budget 32: .*\n.*training\.sampler: .*'uniformly'",
        ),
        (changed("count = 1.0", "size = 1.0"), r"methods\.uniform(.|\n)*size: Extra inputs"),
        (TINY + "training.temperature = 0.1", r"training\.temperature is tuned over a grid"),
        (
            HEAD + DATASET + IN_BATCH + "varies_by_budget = true",
            r"varies_by_budget needs budget_shares",
        ),
        (
            TINY + 'temperature_of = "absent"',
            r"methods\.uniform\.temperature_of: 'absent' is not a",
        ),
        (TINY + 'datasets = ["absent"]', r"methods\.uniform\.datasets: 'absent' is not a"),
        (changed("seeds = 2", 'references = ["absent"]'), r"references: 'absent' is not a method"),
        (
            TINY.replace("budgets = [8, 32]", "budgets = [8]") + "varies_by_budget = true",
            r"budgets \(8,\) must contain budget \(32\)",
        ),
    ],
)
def test_invalid_study_is_rejected_with_its_location(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_study(write_study(tmp_path, text))
    assert str(tmp_path / "study.toml") in str(caught.value)


def test_read_study_reports_all_invalid_trials(tmp_path):
    text = changed('"uniform" }', '"uniformly" }').replace('"in-batch" }', '"batch" }')
    with pytest.raises(ConfigError, match=r"(?s)methods\.in-batch.*methods\.uniform"):
        read_study(write_study(tmp_path, text))


def test_unreadable_study_file_is_rejected(tmp_path):
    with pytest.raises(ConfigError, match=r"study\.toml: cannot be read as TOML"):
        read_study(write_study(tmp_path, "[datasets"))
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read"):
        read_study(tmp_path / "absent.toml")


def test_config_of_sets_counts_by_budget_shares(tmp_path):
    shares = "budget_shares = { count = 1.0, kept = 0.25 }"
    text = changed("budget_shares = { count = 1.0 }", shares).replace('"uniform" }', '"dns" }')
    study = read_study(write_study(tmp_path, text))
    sampler = study.config_of("uniform", 32, 0.1, seed=0).training.sampler
    assert (sampler.count, sampler.kept) == (32, 8)


def test_budgets_of_needs_varies_by_budget(tmp_path):
    study = read_study(write_study(tmp_path))
    assert study.budgets_of("in-batch") == (None,)
    assert study.budgets_of("uniform") == (32,)
    study = read_study(write_study(tmp_path, TINY + "varies_by_budget = true"))
    assert study.budgets_of("uniform") == (8, 32)


def test_config_of_merges_shared_and_method_settings(tmp_path):
    study = read_study(write_study(tmp_path, TINY + "training.batch_size = 128"))
    first = study.config_of("in-batch", None, 0.1, seed=3)
    second = study.config_of("uniform", 32, 0.2, seed=3)
    assert first.towers == second.towers
    assert (first.training.batch_size, second.training.batch_size) == (64, 128)
    assert first.training.epochs == second.training.epochs == 1
    assert (first.training.temperature, second.training.temperature) == (0.1, 0.2)
    assert first.seed == second.seed == 3


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.name)
def test_shipped_studies_are_valid(path):
    study = read_study(path)
    fixed = [name for name, method in study.methods.items() if method.kind == "fixed list"]
    assert len(fixed) == (6 if path.stem in ("full", "quick", "scale") else 0)


def test_read_study_rejects_a_tuned_on_that_is_not_tuned(tmp_path):
    other = '[datasets.other]\nfolder = "other"\ntuned_on = "absent"\n'
    with pytest.raises(ConfigError, match=r"datasets\.other\.tuned_on: 'absent'"):
        read_study(write_study(tmp_path, TINY + other))


def test_method_runs_on_its_datasets_only(tmp_path):
    other = '[datasets.other]\nfolder = "other"\n'
    study = read_study(write_study(tmp_path, TINY + 'datasets = ["other"]\n' + other))
    assert study.methods_on("planted") == ["in-batch"]
    assert study.methods_on("other") == ["in-batch", "uniform"]


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ('datasets = ["other"]\n', "add 'planted', because methods.uniform on 'other' has the"),
        ('datasets = ["planted"]\n[methods.plain]\nkind = "ablation"\ntemperature_of = "uniform"\n',
         "add 'third', because methods.plain on 'third' has the"),
    ],
)  # fmt: skip
def test_methods_need_the_dataset_that_tunes_them(tmp_path, datasets, message):
    text = changed("temperatures = [0.1]", "temperatures = [0.1, 0.2]") + datasets
    text += '[datasets.other]\nfolder = "other"\ntuned_on = "planted"\n'
    text += '[datasets.third]\nfolder = "third"\n'
    with pytest.raises(ConfigError, match=message):
        read_study(write_study(tmp_path, text))
    read_study(write_study(tmp_path, text.replace("[0.1, 0.2]", "[0.1]")))  # nothing to choose
