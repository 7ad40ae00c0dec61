from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime

import numpy as np
import pytest

from benchmarks.compare.runner import _finished, deadline
from benchmarks.compare.store import TrialStore
from benchmarks.compare.subset import Subset
from benchmarks.compare.trial import Trial, rank_all, recalls_of
from index.errors import TrainingError
from tests.support.training_data import as_histories, tiny_config
from trainer.data.interactions import VALID, Cases, build_cases
from trainer.metrics import DEPTH, rank_targets
from trainer.train_loop import build_run_towers, validation_recall
from trainer.training_data import build_training_data


def trial_of(folder, config=None, **changes):
    facts = {"dataset": "a", "method": "b", "budget": None, "config": config or tiny_config()}
    facts |= {"subset": Subset(folder, None, "auto", 0), "fingerprint": "f", "uses_map": False}
    return Trial(**(facts | changes))


@pytest.fixture(scope="module")
def towers_and_vectors(world_data):
    config = tiny_config()
    training_data = build_training_data(world_data, config)
    towers = build_run_towers(training_data, config)
    return towers, training_data.features.encode_all(towers.item)


def test_the_ranking_agrees_with_what_training_validates_by(world_data, towers_and_vectors):
    towers, vectors = towers_and_vectors
    asked = build_cases(world_data.interactions, VALID, len(world_data.user_ids))
    ranks = rank_targets(rank_all(towers.user, vectors, asked), asked)
    wanted = validation_recall(towers.user, vectors, asked)
    assert (ranks.ranks < 50).mean() == pytest.approx(wanted)  # one target each


def test_an_answer_holds_what_is_eligible_and_then_nothing(world_data, towers_and_vectors):
    towers, vectors = towers_and_vectors
    asked = build_cases(world_data.interactions, VALID, len(world_data.user_ids))
    answer = rank_all(towers.user, vectors, asked)[0]
    seen = set(asked.histories.get(0).tolist())
    eligible = 160 - len(seen)
    assert set(answer[:eligible].tolist()) == set(range(160)) - seen
    assert (answer[eligible:] == -1).all()
    assert len(answer) == DEPTH


def test_recalls_are_averaged_case_by_case():
    asked = Cases(
        np.arange(2, dtype=np.int32), as_histories([[0], [0]]), as_histories([[5, 6], [7]])
    )
    answers = np.full((2, DEPTH), -1, dtype=np.int32)
    answers[0, 0], answers[0, 100], answers[1, 60] = 5, 6, 7
    recalls = recalls_of(rank_targets(answers, asked))
    assert recalls[50][0] == 0.25  # half of the first case's, none of the second's
    assert set(recalls[50][1:]) == {0, 0.25, 0.5}  # both second, one each, both first
    assert set(recalls[200]) == {1}


def test_kept_recalls_are_what_they_were(tmp_path):
    store = TrialStore(tmp_path)
    store.prepare()
    rng = np.random.default_rng(0)
    recalls = {count: rng.random(11) for count in (50, 200)}
    trial = trial_of(tmp_path)
    assert store.figures(trial) is None
    assert store.recalls(trial) is None
    store.save(trial, {"recall@50": 0.5}, recalls, datetime(2026, 1, 1, tzinfo=UTC))
    found = store.recalls(trial)
    for count in (50, 200):
        np.testing.assert_allclose(found[count], recalls[count], rtol=1e-6)
    assert store.figures(trial) == {"recall@50": 0.5}
    assert not [path for path in tmp_path.rglob(".*") if path.suffix in (".npz", ".json")]


def test_a_trial_is_named_by_what_it_is_and_not_by_what_it_is_called(tmp_path):
    trial = trial_of(tmp_path)
    assert trial.digest == trial_of(tmp_path / "moved", dataset="other", method="c").digest
    assert (
        trial.digest == trial_of(tmp_path, tiny_config(threads=2, checkpoint_interval_s=1)).digest
    )
    assert trial.digest != trial_of(tmp_path, tiny_config({"seed": 1})).digest
    assert trial.digest != trial_of(tmp_path, tiny_config(temperature=0.2)).digest
    assert trial.digest != trial_of(tmp_path, fingerprint="g").digest


def test_only_a_trial_that_uses_a_cluster_map_depends_on_how_it_is_made(tmp_path):
    other = tiny_config({"clusters": {"level_2_codes": 8}})
    assert trial_of(tmp_path).digest == trial_of(tmp_path, other).digest
    maps = [trial_of(tmp_path, one, uses_map=True) for one in (tiny_config(), other)]
    assert maps[0].digest != maps[1].digest


def test_a_worker_that_was_ended_from_outside_is_told_with_a_remedy(tmp_path):
    future = Future()
    future.set_exception(BrokenProcessPool())
    with pytest.raises(TrainingError, match=r"ended from outside.*fewer --workers"):
        list(_finished({future: trial_of(tmp_path)}))


def test_no_hours_are_all_the_time_there_is():
    assert deadline(None)()
    assert deadline(1)()
    assert not deadline(0)()
