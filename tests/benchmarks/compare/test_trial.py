from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime

import numpy as np
import pytest

from benchmarks.compare.runner import _pop_finished, build_deadline
from benchmarks.compare.store import TrialStore
from benchmarks.compare.subset import Subset
from benchmarks.compare.trial import Trial, recalls_of, warm_recall
from index.errors import TrainingError
from tests.support.training_data import as_histories, tiny_config
from trainer.data.interactions import Cases
from trainer.metrics import DEPTH, case_recalls, rank_targets


def trial_of(folder, config=None, **changes):
    fields = {"dataset": "a", "method": "b", "budget": None, "config": config or tiny_config()}
    fields |= {"subset": Subset(folder, None, "auto", 0), "fingerprint": "f"}
    return Trial(**(fields | changes))


def test_recalls_are_averaged_per_case():
    targets = Cases(
        np.arange(2, dtype=np.int32), as_histories([[0], [0]]), as_histories([[5, 6], [7]])
    )
    rankings = np.full((2, DEPTH), -1, dtype=np.int32)
    rankings[0, 0], rankings[0, 100], rankings[1, 60] = 5, 6, 7
    recalls = recalls_of(rank_targets(rankings, targets))
    assert recalls[50][0] == 0.25  # half of the first case's, none of the second's
    assert set(recalls[50][1:]) == {0, 0.25, 0.5}  # both second, one each, both first
    assert set(recalls[200]) == {1}


def test_warm_recall_leaves_cold_items_out():
    copies = 100
    targets = as_histories([[101, 102], [103]] * copies)
    cases = Cases(np.arange(2 * copies, dtype=np.int32), as_histories([[0]] * 2 * copies), targets)
    counts = np.zeros(110, dtype=np.int64)  # items below 100 are cold
    counts[100:] = 1
    rankings = np.full((2 * copies, DEPTH), -1, dtype=np.int32)
    rankings[::2, :60], rankings[::2, 60] = np.arange(60), 101  # 60 cold ones before a warm target
    rankings[1::2, 0] = 5
    assert case_recalls(rank_targets(rankings, cases), 50).max() == 0
    assert warm_recall(rankings, cases, counts) == 1 / 3
    counts[103] = 0
    assert warm_recall(rankings, cases, counts) == 1 / 2
    counts[102] = 0  # 100 warm targets are too few
    assert warm_recall(rankings, cases, counts) is None


def test_store_saves_and_loads_recalls(tmp_path):
    store = TrialStore(tmp_path)
    store.prepare()
    rng = np.random.default_rng(0)
    recalls = {count: rng.random(11) for count in (50, 200)}
    trial = trial_of(tmp_path)
    assert store.figures(trial) is None
    assert store.recalls(trial) is None
    store.save(trial, {"recall@50": 0.5}, recalls, datetime(2026, 1, 1, tzinfo=UTC))
    loaded = store.recalls(trial)
    for count in (50, 200):
        np.testing.assert_allclose(loaded[count], recalls[count], rtol=1e-6)
    assert store.figures(trial) == {"recall@50": 0.5}
    assert not [path for path in tmp_path.rglob(".*") if path.suffix in (".npz", ".json")]


def test_trial_digest_ignores_names_and_machine_settings(tmp_path):
    trial = trial_of(tmp_path)
    assert trial.digest == trial_of(tmp_path / "moved", dataset="other", method="c").digest
    assert (
        trial.digest == trial_of(tmp_path, tiny_config(threads=2, checkpoint_interval_s=1)).digest
    )
    assert trial.digest != trial_of(tmp_path, tiny_config({"seed": 1})).digest
    assert trial.digest != trial_of(tmp_path, tiny_config(temperature=0.2)).digest
    assert trial.digest != trial_of(tmp_path, fingerprint="g").digest


def test_trial_digest_includes_clusters_only_if_used(tmp_path):
    other = tiny_config({"clusters": {"level_2_codes": 8}})
    assert trial_of(tmp_path).digest == trial_of(tmp_path, other).digest
    digests = [
        trial_of(
            tmp_path, tiny_config({"clusters": {"level_2_codes": codes}}, sampler={"name": "esans"})
        ).digest
        for codes in (8, 16)
    ]
    assert digests[0] != digests[1]


def test_killed_worker_is_reported_with_a_remedy(tmp_path):
    future = Future()
    future.set_exception(BrokenProcessPool())
    with pytest.raises(TrainingError, match=r"worker process was killed.*fewer --workers"):
        list(_pop_finished({future: trial_of(tmp_path)}))


def test_deadline_without_hours_is_unlimited():
    assert build_deadline(None)()
    assert build_deadline(1)()
    assert not build_deadline(0)()
