"""The command end to end, on the planted world."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.compare.__main__ import main
from tests.support.studies import (
    DATASET,
    HEAD,
    IN_BATCH,
    TINY,
    UNIFORM,
    compare,
    write_study,
    write_world,
)
from tests.support.tiny_dataset import write_tiny_world
from trainer.metrics import COUNTS


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study: two methods x two seeds on one dataset."""
    folder = tmp_path_factory.mktemp("comparison")
    write_world(folder)
    write_study(folder)
    assert compare(folder) == 0
    return folder


@pytest.fixture
def resumable(finished, tmp_path):
    """A copy of the finished study."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def rows_of(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "out/rows").glob("*.json")}


def table_of(folder, name="table"):
    return pq.read_table(folder / "out" / f"{name}.parquet").to_pylist()


def test_run_writes_a_row_of_metrics_per_trial(finished):
    rows = table_of(finished, "rows")
    trials = [(row["dataset"], row["method"], row["budget"], row["seed"]) for row in rows]
    assert sorted(trials, key=str) == [
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


def test_table_has_means_spreads_and_differences(finished):
    rows = table_of(finished, "rows")
    for line in table_of(finished):
        recalls = [row["recall@50"] for row in rows if row["method"] == line["method"]]
        assert line["recall@50"] == pytest.approx(np.mean(recalls))
        assert line["recall@50_spread"] == pytest.approx(np.std(recalls, ddof=1))
        assert line["seeds"] == line["seeds_planned"] == 2
    in_batch, uniform = table_of(finished)  # the fixed list
    mean = (in_batch["recall@50"] + uniform["recall@50"]) / 2
    assert in_batch["recall@50_over_fixed_list"] == pytest.approx(in_batch["recall@50"] / mean - 1)
    assert in_batch["recall@50_over_fixed_list_low"] <= in_batch["recall@50_over_fixed_list_high"]
    best, other = sorted((in_batch, uniform), key=lambda line: -line["validation_recall@50"])
    assert best["recall@50_over_best_baseline"] is None
    assert other["best_baseline"].startswith(best["method"])
    assert other["recall@50_over_best_baseline_absolute"] == pytest.approx(
        other["recall@50"] - best["recall@50"]
    )
    assert other["recall@50_over_best_baseline_p_holm"] <= 1


def test_references_add_a_table_over_all_datasets(resumable):
    write_study(resumable, 'references = ["in-batch"]\n' + TINY)
    assert compare(resumable) == 0
    text = (resumable / "out/table.md").read_text()
    table = text[text.index("## All datasets") : text.index("## planted")]
    (difference,) = re.findall(r"\| uniform .*? \| ([-+][\d.]+ %) \[", table)
    in_batch, uniform = (line["recall@50"] for line in table_of(resumable))
    assert difference == f"{100 * (uniform / in_batch - 1):+.1f} %"


def test_markdown_table_names_datasets_and_baselines(finished):
    text = (finished / "out/table.md").read_text()
    assert "210 users, 160 items" in text
    for expected in (
        "± ",
        "For comparison, popularity: recall@50",
        "; EASE: recall@50",
        "Best baseline: ",
        "Mean of the fixed list (2 methods)",
        "2 of 2",
    ):
        assert expected in text
    assert text.endswith("## Missing\n\nNothing.\n")


def test_bucket_under_200_targets_has_no_recall(finished):
    line = table_of(finished)[0]
    assert 0 < line["head_targets"] < 200
    assert line.get("head_recall@50") is None


def test_run_writes_a_self_contained_report(finished):
    text = (finished / "out/report.html").read_text()
    assert "recall@50" in text
    assert "<script src=" not in text  # it needs no network


def test_run_saves_rows_and_resamples(finished):
    assert len(list((finished / "out/resamples").glob("*.npz"))) == 4
    assert [path.suffix for path in (finished / "out/rows").iterdir()] == [".json"] * 4


def test_run_of_a_finished_study_trains_nothing(resumable, capsys):
    before = rows_of(resumable)
    assert compare(resumable) == 0
    assert rows_of(resumable) == before
    assert "all trials are finished" in capsys.readouterr().out


def test_run_repeats_a_killed_trial_with_equal_metrics(resumable):
    before, figures = rows_of(resumable), table_of(resumable, "rows")
    killed = sorted((resumable / "out/rows").glob("*.json"))[0]
    killed.rename(killed.with_name(f".{killed.name}.123"))  # resamples are there, the row is not
    assert compare(resumable) == 0
    after = rows_of(resumable)
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] != before[name]] == [killed.name]
    for old, new in zip(figures, table_of(resumable, "rows"), strict=True):
        assert old["recall@50"] == new["recall@50"]
        assert old["negative_score"] == new["negative_score"]


def test_run_names_an_unreadable_row(resumable, capsys):
    row = next((resumable / "out/rows").glob("*.json"))
    row.write_text("{")
    assert compare(resumable) == 1
    assert f"{row}: cannot be read as a trial row" in capsys.readouterr().err


def test_run_trains_only_an_added_method(resumable):
    before = rows_of(resumable)
    added = '[methods.plain]\nkind = "baseline"\nseeds = 1\ntraining.log_q_share = 0.0\n'
    write_study(resumable, TINY + added)
    assert compare(resumable) == 0
    after = rows_of(resumable)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1


def test_run_of_a_renamed_method_trains_nothing(resumable):
    before = rows_of(resumable)
    write_study(resumable, TINY.replace("[methods.in-batch]", "[methods.batch]"))
    assert compare(resumable) == 0
    assert rows_of(resumable) == before
    assert [line["method"] for line in table_of(resumable)] == ["batch", "uniform"]


def test_run_without_time_lists_missing_trials(tmp_path, capsys):
    write_world(tmp_path)
    write_study(tmp_path)
    assert compare(tmp_path, "--hours", "0") == 0
    assert rows_of(tmp_path) == {}
    assert "4 trials missing" in capsys.readouterr().out
    text = (tmp_path / "out/table.md").read_text()
    assert "- planted: uniform 32: 0 of 2 seeds" in text
    assert "The fixed list is not complete yet: no mean." in text


@pytest.mark.e2e
def test_run_with_two_workers_equals_serial_run(finished, tmp_path):
    write_world(tmp_path)
    write_study(tmp_path, HEAD.replace("seeds = 2", "seeds = 1") + DATASET + IN_BATCH + UNIFORM)
    assert compare(tmp_path, "--workers", "2") == 0
    serial = {(row["method"], row["seed"]): row["recall@50"] for row in table_of(finished, "rows")}
    parallel = table_of(tmp_path, "rows")
    assert len(parallel) == 2
    for row in parallel:
        assert row["recall@50"] == pytest.approx(serial[row["method"], 0], abs=0.01)


@pytest.mark.e2e
def test_workers_exit_when_the_command_is_killed(tmp_path):
    write_world(tmp_path)
    study = write_study(tmp_path, TINY.replace("epochs = 1", "epochs = 1000\npatience = 1000"))
    arguments = ["run", "--study", study, "--data", tmp_path, "--out", tmp_path / "out"]
    running = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.compare", *arguments, "--workers", "2"]
    )
    try:
        wait_until(lambda: sum(is_busy(pid) for pid in children_of(running.pid)) == 2)
        workers = children_of(running.pid)
    finally:
        running.kill()
        running.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def children_of(pid):
    """The child processes of a process; none after it has ended."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def is_busy(pid):
    """Whether a process has used CPU time as only training does."""
    path = Path(f"/proc/{pid}/stat")
    ticks = path.read_text().rsplit(")", 1)[1].split()[11] if path.exists() else 0
    return int(ticks) > 3 * os.sysconf("SC_CLK_TCK")


def wait_until(condition, deadline_s=120):
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_budgets_and_ablations_reuse_the_temperature(tmp_path):
    write_world(tmp_path)
    text = TINY.replace("temperatures = [0.1]", "temperatures = [0.1, 9.0]")
    ablation = '[methods.plain]\nkind = "ablation"\ntemperature_of = "in-batch"\n'
    text = text.replace("seeds = 2", "seeds = 1") + "varies_by_budget = true\n" + ablation
    write_study(tmp_path, text)
    assert compare(tmp_path) == 0
    lines = {(line["method"], line["budget"]): line for line in table_of(tmp_path)}
    assert lines.keys() == {("in-batch", None), ("uniform", 8), ("uniform", 32), ("plain", None)}
    assert lines["uniform", 8]["encoded_per_step"] == 8
    tried = [row for row in table_of(tmp_path, "rows") if row["method"] == "uniform"]
    grid = {row["temperature"]: row for row in tried if row["budget"] == 32}
    best = max(grid, key=lambda temperature: grid[temperature]["validation_recall@50"])
    assert lines["uniform", 8]["temperature"] == best
    assert lines["uniform", 32]["temperature"] == best
    assert lines["plain", None]["temperature"] == lines["in-batch", None]["temperature"]
    assert len([row for row in tried if row["budget"] == 8]) == 1
    assert "### Budgets" in (tmp_path / "out/table.md").read_text()


def test_run_continues_after_a_failed_trial(tmp_path, capsys):
    write_world(tmp_path)
    wild = UNIFORM.replace(".uniform", ".wild") + "temperatures = [1e-300]\n"  # scores overflow
    write_study(tmp_path, HEAD.replace("seeds = 2", "seeds = 1") + DATASET + wild + IN_BATCH)
    assert compare(tmp_path) == 0
    assert "1 trials missing" in capsys.readouterr().out
    text = (tmp_path / "out/table.md").read_text()
    assert "- planted: wild 32: 0 of 1 seeds" in text
    assert "failed: planted: wild 32, 1e-300, 0: epoch 1, batch 1: the loss is nan" in text
    assert [row["method"] for row in table_of(tmp_path, "rows")] == ["in-batch"]


def test_averages_leave_out_methods_of_some_datasets(tmp_path, capsys):
    write_world(tmp_path)
    write_tiny_world(tmp_path / "other", users=210, items=170)
    head = HEAD.replace("seeds = 2", 'seeds = 1\nreferences = ["in-batch"]')
    other = '[datasets.other]\nfolder = "other"\n'
    uniform = UNIFORM + 'datasets = ["other"]\n'
    write_study(tmp_path, head + DATASET + other + IN_BATCH + uniform)
    assert compare(tmp_path) == 0
    assert "2 methods on 2 datasets: 3 trials, and 0 to tune" in capsys.readouterr().out
    lines = [(line["dataset"], line["method"]) for line in table_of(tmp_path)]
    assert lines == [("planted", "in-batch"), ("other", "in-batch"), ("other", "uniform")]
    text = (tmp_path / "out/table.md").read_text()
    averages = text.split("## All datasets")[1].split("## planted")[0]
    assert "in-batch" in averages
    assert "uniform" not in averages
    assert text.endswith("## Missing\n\nNothing.\n")


def test_run_names_a_missing_dataset(tmp_path, capsys):
    write_study(tmp_path)
    assert compare(tmp_path) == 1
    message = capsys.readouterr().err
    assert f"datasets not found: world; searched in {tmp_path}" in message
    assert not (tmp_path / "out").exists()


def test_help_shows_a_valid_study(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    example = text.split("A study file:\n")[1].split("A method may")[0]
    study = write_study(tmp_path, "\n".join(line.strip() for line in example.splitlines()))
    assert main(["run", "--study", str(study), "--out", str(tmp_path / "out")]) == 1
    assert "datasets not found: amazon_instruments" in capsys.readouterr().err


def test_row_holds_its_trials_configuration(finished):
    for path in (finished / "out/rows").iterdir():
        row = json.loads(path.read_text())
        assert row.keys() == {
            *("dataset", "method", "budget", "created_at", "fingerprint", "config", "figures")
        }
        assert row["config"]["training"]["temperature"] == 0.1


def test_run_generates_shops_and_reuses_temperatures(tmp_path):
    shop = "shop = { items = 1_000, interactions = 6_000, seed = %d }\n"
    first = '[datasets.first]\nfolder = "one"\nis_reported = false\n' + shop % 1
    second = '[datasets.second]\nfolder = "two"\ntuned_on = "first"\n' + shop % 2
    head = HEAD.replace("seeds = 2", "seeds = 1").replace("[0.1]", "[0.1, 0.2]")
    write_study(tmp_path, head + first + second + IN_BATCH)
    assert compare(tmp_path) == 0
    assert (tmp_path / "two" / "truth.npz").exists()
    rows = table_of(tmp_path, "rows")
    tuning = [row for row in rows if row["dataset"] == "first"]
    best = max(tuning, key=lambda row: row["validation_recall@50"])
    (line,) = table_of(tmp_path)
    assert (line["dataset"], line["temperature"]) == ("second", best["temperature"])
    assert (len(tuning), len(rows)) == (2, 3)
