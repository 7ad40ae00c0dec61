"""The command from end to end, on the planted world: seconds a run."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.compare.__main__ import main
from tests.support.study_plans import (
    DATASET,
    HEAD,
    IN_BATCH,
    TINY,
    UNIFORM,
    compare,
    write_plan,
    write_world,
)
from trainer.metrics import COUNTS


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two methods x two seeds on one dataset, done."""
    folder = tmp_path_factory.mktemp("comparison")
    write_world(folder)
    write_plan(folder)
    assert compare(folder) == 0
    return folder


@pytest.fixture
def again(finished, tmp_path):
    """A copy of it to go on with."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def rows_of(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "out/rows").glob("*.json")}


def table_of(folder, name="table"):
    return pq.read_table(folder / "out" / f"{name}.parquet").to_pylist()


def test_every_run_is_a_row_with_all_its_figures(finished):
    rows = table_of(finished, "rows")
    cells = [(row["dataset"], row["method"], row["budget"], row["seed"]) for row in rows]
    assert sorted(cells, key=str) == [
        ("planted", "in-batch", None, 0),
        ("planted", "in-batch", None, 1),
        ("planted", "uniform", 32, 0),
        ("planted", "uniform", 32, 1),
    ]
    for row in rows:
        assert row["cases"] == 210
        assert row["temperature"] == 0.1
        assert all(0 <= row[f"{name}@{k}"] <= 1 for name in ("recall", "ndcg") for k in COUNTS)
        assert 0 < row["validation_recall@50"] <= 1
        assert row["steps"] > 0
        assert row["seconds_per_step"] > 0
        assert row["cpu_seconds_per_step"] > 0
        assert row["cpu_seconds"] > row["cpu_seconds_per_step"] * row["steps"] / 2
        assert 0 < row["false_negative_share"] < 0.1
        assert row["encoded_per_step"] == (32 if row["method"] == "uniform" else 0)
        assert 100 < row["distinct_per_epoch"] <= 160
        assert row["tail_targets"] + row["torso_targets"] + row["head_targets"] <= 210


def test_a_table_has_means_spreads_and_differences(finished):
    rows = table_of(finished, "rows")
    for line in table_of(finished):
        runs = [row["recall@50"] for row in rows if row["method"] == line["method"]]
        assert line["recall@50"] == pytest.approx(np.mean(runs))
        assert line["recall@50_spread"] == pytest.approx(np.std(runs, ddof=1))
        assert line["seeds"] == line["seeds_wanted"] == 2
    ours, theirs = table_of(finished)  # in-batch, uniform: the fixed list is these two
    mean = (ours["recall@50"] + theirs["recall@50"]) / 2
    assert ours["recall@50_over_fixed_list"] == pytest.approx(ours["recall@50"] / mean - 1)
    assert ours["recall@50_over_fixed_list_low"] <= ours["recall@50_over_fixed_list_high"]
    best, other = sorted((ours, theirs), key=lambda line: -line["validation_recall@50"])
    assert best["recall@50_over_best_baseline"] is None
    assert other["best_baseline"].startswith(best["method"])
    assert other["recall@50_over_best_baseline_absolute"] == pytest.approx(
        other["recall@50"] - best["recall@50"]
    )
    assert other["recall@50_over_best_baseline_p_holm"] <= 1


def test_the_table_for_a_person_says_what_is_what(finished):
    text = (finished / "out/table.md").read_text()
    assert "210 users, 160 items" in text
    for told in (
        "± ",
        "For comparison, popularity: recall@50",
        "; EASE: recall@50",
        "Best baseline: ",
        "Mean of the fixed list (2 methods)",
        "2 of 2",
    ):
        assert told in text
    assert text.endswith("## Missing\n\nNothing.\n")


def test_a_bucket_with_under_200_test_items_has_a_count_and_no_figure(finished):
    line = table_of(finished)[0]
    assert 0 < line["head_targets"] < 200
    assert line.get("head_recall@50") is None


def test_the_pictures_lie_beside_the_tables(finished):
    text = (finished / "out/report.html").read_text()
    assert "recall@50" in text
    assert "<script src=" not in text  # it needs no network


def test_every_run_keeps_a_row_and_its_resamples(finished):
    assert len(list((finished / "out/resamples").glob("*.npz"))) == 4
    assert [path.suffix for path in (finished / "out/rows").iterdir()] == [".json"] * 4


def test_a_second_call_trains_nothing(again, capsys):
    before = rows_of(again)
    assert compare(again) == 0
    assert rows_of(again) == before
    assert "all trials are done" in capsys.readouterr().out


def test_a_trial_that_was_killed_is_run_again_and_gives_the_same(again):
    before, figures = rows_of(again), table_of(again, "rows")
    killed = sorted((again / "out/rows").glob("*.json"))[0]
    killed.rename(
        killed.with_name(f".{killed.name}.123")
    )  # its resamples are there, its row not yet
    assert compare(again) == 0
    after = rows_of(again)
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] != before[name]] == [killed.name]
    for one, other in zip(figures, table_of(again, "rows"), strict=True):
        assert one["recall@50"] == other["recall@50"]
        assert one["negative_score"] == other["negative_score"]


def test_a_row_that_cannot_be_read_is_told_by_name(again, capsys):
    row = next((again / "out/rows").glob("*.json"))
    row.write_text("{")
    assert compare(again) == 1
    assert f"{row}: cannot be read as a row" in capsys.readouterr().err


def test_a_method_added_later_is_all_that_is_run(again):
    before = rows_of(again)
    added = '[methods.plain]\nkind = "baseline"\nseeds = 1\ntraining.log_q_share = 0.0\n'
    write_plan(again, TINY + added)
    assert compare(again) == 0
    after = rows_of(again)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1


def test_a_new_name_of_a_method_costs_nothing(again):
    before = rows_of(again)
    write_plan(again, TINY.replace("[methods.in-batch]", "[methods.batch]"))
    assert compare(again) == 0
    assert rows_of(again) == before
    assert [line["method"] for line in table_of(again)] == ["batch", "uniform"]


def test_without_time_nothing_is_run_and_the_table_says_what_is_missing(tmp_path, capsys):
    write_world(tmp_path)
    write_plan(tmp_path)
    assert compare(tmp_path, "--hours", "0") == 0
    assert rows_of(tmp_path) == {}
    assert "4 trials missing" in capsys.readouterr().out
    text = (tmp_path / "out/table.md").read_text()
    assert "- planted: uniform 32: 0 of 2 seeds" in text
    assert "The fixed list is not all there yet: no mean." in text


def test_two_workers_give_what_one_gives(finished, tmp_path):
    write_world(tmp_path)
    write_plan(tmp_path, HEAD.replace("seeds = 2", "seeds = 1") + DATASET + IN_BATCH + UNIFORM)
    assert compare(tmp_path, "--workers", "2") == 0
    alone = {(row["method"], row["seed"]): row["recall@50"] for row in table_of(finished, "rows")}
    side_by_side = table_of(tmp_path, "rows")
    assert len(side_by_side) == 2
    for row in side_by_side:
        assert row["recall@50"] == pytest.approx(alone[row["method"], 0], abs=0.01)


def test_workers_end_with_a_command_that_is_killed(tmp_path):
    write_world(tmp_path)
    plan = write_plan(tmp_path, TINY.replace("epochs = 1", "epochs = 1000\npatience = 1000"))
    words = ["run", "--plan", plan, "--data", tmp_path, "--out", tmp_path / "out"]
    running = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.compare", *words, "--workers", "2"]
    )
    try:
        wait_until(lambda: sum(is_busy(pid) for pid in children_of(running.pid)) == 2)
        workers = children_of(running.pid)
    finally:
        running.kill()
        running.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def children_of(pid):
    """The processes that one has started; none where it is gone."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(one) for one in path.read_text().split()] if path.exists() else []


def is_busy(pid):
    """Whether a process trains: torch is loaded, and some seconds' work done."""
    path = Path(f"/proc/{pid}/stat")
    ticks = path.read_text().rsplit(")", 1)[1].split()[11] if path.exists() else 0
    return int(ticks) > 3 * os.sysconf("SC_CLK_TCK")


def wait_until(is_so, deadline_s=120):
    end = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_method_varies_by_budget_and_takes_its_temperature_along(tmp_path):
    write_world(tmp_path)
    text = TINY.replace("temperatures = [0.1]", "temperatures = [0.1, 9.0]")
    ablation = '[methods.plain]\nkind = "ablation"\ntemperature_of = "in-batch"\n'
    text = text.replace("seeds = 2", "seeds = 1") + "varies_by_budget = true\n" + ablation
    write_plan(tmp_path, text)
    assert compare(tmp_path) == 0
    lines = {(line["method"], line["budget"]): line for line in table_of(tmp_path)}
    assert lines.keys() == {
        ("in-batch", None),
        ("uniform", 8),
        ("uniform", 32),
        ("plain", None),
    }
    assert lines["uniform", 8]["encoded_per_step"] == 8
    tried = [row for row in table_of(tmp_path, "rows") if row["method"] == "uniform"]
    grid = {row["temperature"]: row for row in tried if row["budget"] == 32}
    best = max(grid, key=lambda one: grid[one]["validation_recall@50"])
    assert lines["uniform", 8]["temperature"] == best
    assert lines["uniform", 32]["temperature"] == best
    assert lines["plain", None]["temperature"] == lines["in-batch", None]["temperature"]
    assert len([row for row in tried if row["budget"] == 8]) == 1
    assert "### Budgets" in (tmp_path / "out/table.md").read_text()


def test_a_trial_that_fails_is_told_and_the_others_are_run(tmp_path, capsys):
    write_world(tmp_path)
    wild = UNIFORM.replace(".uniform", ".wild") + "temperatures = [1e-300]\n"  # scores overflow
    write_plan(tmp_path, HEAD.replace("seeds = 2", "seeds = 1") + DATASET + wild + IN_BATCH)
    assert compare(tmp_path) == 0
    assert "1 trials missing" in capsys.readouterr().out
    text = (tmp_path / "out/table.md").read_text()
    assert "- planted: wild 32: 0 of 1 seeds" in text
    assert "failed: planted: wild 32, 1e-300, 0: epoch 1, batch 1: the loss is nan" in text
    assert [row["method"] for row in table_of(tmp_path, "rows")] == ["in-batch"]


def test_a_dataset_that_is_nowhere_is_told(tmp_path, capsys):
    write_plan(tmp_path)
    assert compare(tmp_path) == 1
    told = capsys.readouterr().err
    assert f"datasets not found: world; sought in {tmp_path}" in told
    assert not (tmp_path / "out").exists()


def test_the_help_shows_a_plan_that_can_be_used(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    shown = text.split("A plan:\n")[1].split("Further,")[0]
    plan = write_plan(tmp_path, "\n".join(line.strip() for line in shown.splitlines()))
    assert main(["run", "--plan", str(plan), "--out", str(tmp_path / "out")]) == 1
    assert "datasets not found: amazon_instruments" in capsys.readouterr().err


def test_a_row_tells_what_it_is_of(finished):
    for path in (finished / "out/rows").iterdir():
        row = json.loads(path.read_text())
        assert row.keys() == {
            *("dataset", "method", "budget", "created_at", "fingerprint", "config", "figures")
        }
        assert row["config"]["training"]["temperature"] == 0.1
