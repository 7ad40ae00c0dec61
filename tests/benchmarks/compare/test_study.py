from pathlib import Path

import pytest

from benchmarks.compare.study import read_study
from index.errors import ConfigError
from tests.support.study_plans import DATASET, HEAD, IN_BATCH, TINY, write_plan

PLANS = Path(__file__).parents[3] / "benchmarks" / "plans"


def changed(old, new):
    assert old in TINY
    return TINY.replace(old, new)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (changed("seeds = 2", "sedes = 2"), r"sedes: Extra inputs are not permitted"),
        (changed("seeds = 2", "seeds = 0"), r"seeds: .*greater than or equal to 1"),
        (
            HEAD + DATASET + IN_BATCH.replace("fixed list", "other"),
            r"in-batch\.kind: .*'esans'",
        ),
        (HEAD + IN_BATCH, r"datasets: Field required"),
        (HEAD + DATASET, r"methods: Field required"),
        (changed("epochs = 1", "epoch = 1"), r"methods\.in-batch.*\n.*training\.epoch: Extra"),
        (
            changed('"uniform" }', '"uniformly" }'),
            r"methods\.uniform, budget 32: .*\n.*training\.sampler: .*'uniformly'",
        ),
        (changed("count = 1.0", "size = 1.0"), r"methods\.uniform(.|\n)*size: Extra inputs"),
        (TINY + "training.temperature = 0.1", r"training\.temperature is chosen from the grid"),
        (
            HEAD + DATASET + IN_BATCH + "varies_by_budget = true",
            r"varies_by_budget needs budget_shares",
        ),
        (
            TINY + 'temperature_of = "nobody"',
            r"methods\.uniform\.temperature_of: 'nobody' is no",
        ),
        (
            TINY.replace("budgets = [8, 32]", "budgets = [8]") + "varies_by_budget = true",
            r"budgets \(8,\) must contain budget \(32\)",
        ),
    ],
)
def test_a_plan_that_cannot_be_is_refused_and_the_place_is_told(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told) as caught:
        read_study(write_plan(tmp_path, text))
    assert str(tmp_path / "plan.toml") in str(caught.value)


def test_all_runs_that_cannot_be_are_told_together(tmp_path):
    text = changed('"uniform" }', '"uniformly" }').replace('"in-batch" }', '"batch" }')
    with pytest.raises(ConfigError, match=r"(?s)methods\.in-batch.*methods\.uniform"):
        read_study(write_plan(tmp_path, text))


def test_a_file_that_is_not_toml_or_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"plan\.toml: cannot be read as TOML"):
        read_study(write_plan(tmp_path, "[datasets"))
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read"):
        read_study(tmp_path / "absent.toml")


def test_a_budget_sets_the_samplers_counts_by_their_shares(tmp_path):
    shares = "budget_shares = { count = 1.0, kept = 0.25 }"
    text = changed("budget_shares = { count = 1.0 }", shares).replace('"uniform" }', '"dns" }')
    plan = read_study(write_plan(tmp_path, text))
    sampler = plan.config_of("uniform", 32, 0.1, seed=0).training.sampler
    assert (sampler.count, sampler.kept) == (32, 8)


def test_only_a_method_that_says_so_is_run_at_every_budget(tmp_path):
    plan = read_study(write_plan(tmp_path))
    assert plan.budgets_of("in-batch") == (None,)
    assert plan.budgets_of("uniform") == (32,)
    plan = read_study(write_plan(tmp_path, TINY + "varies_by_budget = true"))
    assert plan.budgets_of("uniform") == (8, 32)


def test_all_methods_share_what_is_common_and_change_what_is_theirs(tmp_path):
    plan = read_study(write_plan(tmp_path, TINY + "training.batch_size = 128"))
    one = plan.config_of("in-batch", None, 0.1, seed=3)
    other = plan.config_of("uniform", 32, 0.2, seed=3)
    assert one.towers == other.towers
    assert (one.training.batch_size, other.training.batch_size) == (64, 128)
    assert one.training.epochs == other.training.epochs == 1
    assert (one.training.temperature, other.training.temperature) == (0.1, 0.2)
    assert one.seed == other.seed == 3


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda path: path.name)
def test_a_shipped_plan_can_be_read(path):
    plan = read_study(path)
    fixed = [name for name, method in plan.methods.items() if method.kind == "fixed list"]
    assert len(fixed) == 6
