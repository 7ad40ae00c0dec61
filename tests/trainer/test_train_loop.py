import dataclasses
import itertools
import math
from functools import partial

import pytest
import torch

from index.errors import TrainingError
from tests.support.training_data import tiny_config
from trainer import loss
from trainer.checkpoint import Checkpoint
from trainer.sampler_factory import build_sampler
from trainer.samplers.base import SampledNegatives
from trainer.samplers.simple import UniformSampler, sample_in_batch
from trainer.train_loop import TrainLoop, train
from trainer.training_data import build_training_data
from trainer.validation import validation_recall


def trained(data, folder, sampler=sample_in_batch, **changes):
    """Train on a dataset with a tiny configuration."""
    config = tiny_config(**changes)
    checkpoint = Checkpoint(folder / "run.safetensors", "this run")
    return train(build_training_data(data, config), sampler, config, checkpoint)


def virtual(context):
    """Virtual negatives: the positives with rolled coordinates, per row."""
    count = len(context.positives)
    vectors = torch.roll(context.positives, 1, dims=1)[None].expand(count, -1, -1)
    log_q = torch.zeros(count, count, device=vectors.device)
    return SampledNegatives(vectors, log_q, torch.zeros_like(log_q, dtype=torch.bool))


def not_a_number(context):
    sampled = sample_in_batch(context)
    return dataclasses.replace(sampled, log_q=sampled.log_q * math.nan)


def all_masked(context):
    sampled = sample_in_batch(context)
    return dataclasses.replace(sampled, is_masked=torch.ones_like(sampled.is_masked))


def losses_of(done):
    return [epoch["loss"] for epoch in done.progress.curve]


def recall_of(done, data):
    training_data = build_training_data(data, tiny_config())
    encode = partial(training_data.features.encode, done.towers.item)
    cases = training_data.validation
    return validation_recall(done.towers.user, encode, len(training_data.features), cases)


def test_padding_of_encoded_rows_changes_no_loss(world_data, monkeypatch):
    data, config = build_training_data(world_data, tiny_config()), tiny_config()
    losses, encoded = {}, {}
    for multiple in (1, loss.PADDED_TO):
        monkeypatch.setattr(loss, "PADDED_TO", multiple)
        loop, sizes = TrainLoop(data, UniformSampler(64), config), []
        loop.towers.item.register_forward_hook(lambda *call, into=sizes: into.append(len(call[2])))
        losses[multiple] = [loop.take_step(batch) for batch in data.loader.epoch(0)]
        encoded[multiple] = set(sizes)
    assert losses[1] == pytest.approx(losses[loss.PADDED_TO], rel=1e-4)
    assert len(encoded[1]) > 2
    assert encoded[loss.PADDED_TO] == {128, 256}
    assert {len(loss.pad(torch.ones(count))) for count in (1, 128, 129, 513)} == {128, 256, 1024}


def test_positives_are_uncorrected_without_positive_log_q(world_data):
    def uncorrected(context):
        return dataclasses.replace(sample_in_batch(context), positive_log_q=None)

    data = build_training_data(world_data, tiny_config())
    losses = {
        (sampler, is_corrected): TrainLoop(
            data, sampler, tiny_config(positive_log_q=is_corrected)
        ).take_step(next(data.loader.epoch(0)))
        for sampler in (sample_in_batch, uncorrected)
        for is_corrected in (True, False)
    }
    assert losses[sample_in_batch, False] == losses[uncorrected, True]
    assert losses[sample_in_batch, False] == losses[uncorrected, False]
    assert losses[sample_in_batch, True] != losses[uncorrected, True]


@pytest.mark.parametrize("sampler", [sample_in_batch, UniformSampler(64)])
def test_train_learns_planted_parity(world_data, tmp_path, sampler):
    done = trained(world_data, tmp_path, sampler)
    losses = losses_of(done)
    assert losses == sorted(losses, reverse=True)
    assert done.progress.best_recall > 0.5  # 50 of 80 items of a parity are 0.62, of all 0.31


def test_train_accepts_virtual_negatives(world_data, tmp_path):
    done = trained(world_data, tmp_path, virtual, epochs=2)
    assert done.progress.curve[1]["loss"] < done.progress.curve[0]["loss"]
    assert done.progress.step == 2 * math.ceil(world_targets(world_data) / 64)


def world_targets(data):
    """Number of targets: the training interactions except each user's first."""
    return int((data.interactions.parts == 0).sum()) - len(data.user_ids)


def test_train_is_deterministic_for_a_seed(world_data, tmp_path):
    towers = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        towers.append(trained(world_data, tmp_path / name, epochs=1).towers)
    pairs = zip(towers[0].parameters(), towers[1].parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", ["in-batch", "mixed", "batch-mix", "positive-mixing"])
def test_training_with_two_threads_is_deterministic(world_data, name):
    """Items recur in the batch; torch adds their gradients in random order in some operations."""
    towers = {"embedding_dim": 64}  # 1024 x 64 numbers are enough to be split among threads
    config = tiny_config({"towers": towers}, batch_size=1024, sampler={"name": name})
    data = build_training_data(world_data, config)
    losses = []
    for _ in range(3):
        loop = TrainLoop(data, build_sampler(config.training.sampler, None), config)
        epochs = (loop.take_step(batch) for epoch in range(4) for batch in data.loader.epoch(epoch))
        losses.append(list(epochs))
    assert losses[0] == losses[1] == losses[2]


def test_train_non_finite_loss_raises_training_error(world_data, tmp_path):
    message = r"epoch 1, batch 1: the loss is nan, expected a finite number; lower learning_rate"
    with pytest.raises(TrainingError, match=message):
        trained(world_data, tmp_path, not_a_number)


def test_train_non_finite_vectors_raise_before_validation(world_data, tmp_path):
    def infinite_gradient(context):
        sampled = sample_in_batch(context)
        root = torch.sqrt(context.positives.sum() * 0)  # 0, but its gradient is not finite
        return dataclasses.replace(sampled, log_q=sampled.log_q + root)

    with pytest.raises(TrainingError, match=r"epoch 1.*not finite"):
        trained(world_data, tmp_path, infinite_gradient, batch_size=65_536)


def test_train_zero_loss_raises_training_error(world_data, tmp_path):
    with pytest.raises(TrainingError, match=r"the loss is exactly 0.*larger batch_size"):
        trained(world_data, tmp_path, all_masked)


def test_step_updates_only_id_rows_of_its_batch(world_data):
    config = tiny_config()
    data = build_training_data(world_data, config)
    loop = TrainLoop(data, sample_in_batch, config)
    first, second = itertools.islice(data.loader.epoch(0), 2)
    loop.take_step(first)
    table = loop.towers.item.ids.weight
    before = table.detach().clone()
    loop.take_step(second)
    changed = set(torch.nonzero((table != before).any(dim=1)).squeeze(1).tolist())
    used = {*second.positive_rows.tolist(), *second.history_rows[second.mask].tolist()}
    assert changed <= used | {loop.towers.item.unknown_row}
    assert len(changed) > len(used) / 2  # of the others, ids were dropped


def test_train_in_bfloat16_learns_with_float32_weights(world_data, tmp_path):
    done = trained(world_data, tmp_path, precision="bfloat16", epochs=2)
    (tmp_path / "other").mkdir()
    whole = trained(world_data, tmp_path / "other", precision="float32", epochs=2)
    assert {weight.dtype for weight in done.towers.parameters()} == {torch.float32}
    assert losses_of(done) != losses_of(whole)
    assert losses_of(done) == pytest.approx(losses_of(whole), rel=0.01)


def test_train_in_automatic_precision_is_float32_on_cpu(world_data, tmp_path):
    losses = []
    for name in ("auto", "float32"):
        (tmp_path / name).mkdir()
        losses.append(losses_of(trained(world_data, tmp_path / name, precision=name, epochs=1)))
    assert losses[0] == losses[1]


def test_train_returns_best_weights(world_data, tmp_path):
    def spoiled_later(context):
        sampled = sample_in_batch(context)
        if context.step < 14:  # one epoch
            return sampled
        nothing = torch.zeros_like(sampled.is_masked)
        return dataclasses.replace(sampled, vectors=-sampled.vectors, is_masked=nothing)

    done = trained(world_data, tmp_path, spoiled_later, epochs=3, learning_rate=0.02)
    recalls = [epoch["recall@50"] for epoch in done.progress.curve]
    assert recalls[done.progress.best_epoch] == max(recalls) == done.progress.best_recall
    assert recalls[-1] < max(recalls)
    assert recall_of(done, world_data) == pytest.approx(done.progress.best_recall)


@pytest.mark.parametrize("patience", [1, 3])
def test_train_stops_after_patience_epochs(world_data, tmp_path, patience):
    done = trained(
        world_data, tmp_path, epochs=50, patience=patience, learning_rate=1e-12
    )  # the weights hardly change, so the first epoch remains the best
    assert (len(done.progress.curve), done.progress.best_epoch) == (1 + patience, 0)


def test_train_resumes_to_identical_weights(world_data, tmp_path, capsys):
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()

    def stops_once(context):
        if context.step == 20 and not (tmp_path / "stopped once").exists():
            (tmp_path / "stopped once").touch()
            raise InterruptedError
        return sample_in_batch(context)

    whole = trained(world_data, tmp_path / "whole", epochs=3)
    with pytest.raises(InterruptedError):
        trained(world_data, tmp_path / "stopped", stops_once, epochs=3, checkpoint_interval_s=0)
    again = trained(world_data, tmp_path / "stopped", stops_once, epochs=3)
    assert "resuming from epoch 2, batch" in capsys.readouterr().out
    pairs = zip(whole.towers.parameters(), again.towers.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)
    assert losses_of(again) == losses_of(whole)


def test_train_resumed_after_last_epoch_takes_no_step(world_data, tmp_path):
    done = trained(world_data, tmp_path, epochs=2)
    again = trained(world_data, tmp_path, not_a_number, epochs=2)  # no step is taken
    assert again.progress.curve == done.progress.curve


def test_build_sampler_from_config_trains_identically(world_data, tmp_path):
    config = tiny_config(epochs=1, sampler={"name": "uniform", "count": 32})
    checkpoint = Checkpoint(tmp_path / "one.safetensors", "this run")
    sampler = build_sampler(config.training.sampler)
    done = train(build_training_data(world_data, config), sampler, config, checkpoint)
    other = trained(world_data, tmp_path, UniformSampler(32), epochs=1)
    assert losses_of(done) == losses_of(other)


def test_build_training_data_rejects_too_few_targets(world_data):
    empty = dataclasses.replace(
        world_data.interactions,
        user_rows=world_data.interactions.user_rows[:0],
        item_rows=world_data.interactions.item_rows[:0],
        parts=world_data.interactions.parts[:0],
    )
    with pytest.raises(TrainingError, match="found 0 targets, expected at least 2"):
        build_training_data(dataclasses.replace(world_data, interactions=empty), tiny_config())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_build_training_data_rejects_unavailable_cuda(world_data):
    with pytest.raises(TrainingError, match="torch detects no CUDA device"):
        build_training_data(world_data, tiny_config(device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch detects no CUDA device")
@pytest.mark.parametrize("sampler", [sample_in_batch, virtual])
def test_train_learns_planted_parity_on_cuda(world_data, tmp_path, sampler):
    config = tiny_config(device="cuda")
    checkpoint = Checkpoint(tmp_path / "run.safetensors", "this run")
    done = train(build_training_data(world_data, config), sampler, config, checkpoint)
    assert done.progress.curve[-1]["loss"] < done.progress.curve[0]["loss"]
    assert next(done.towers.parameters()).is_cuda
