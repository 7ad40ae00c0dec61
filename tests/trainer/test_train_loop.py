import dataclasses
import math

import pytest
import torch

from index.errors import TrainingError
from tests.support.training_data import tiny_config
from trainer.checkpoint import Checkpoint
from trainer.sampler_factory import build_sampler
from trainer.samplers.base import SampledNegatives
from trainer.samplers.simple import UniformSampler, sample_in_batch
from trainer.train_loop import train, validation_recall
from trainer.training_data import build_training_data


def trained(data, folder, sampler=sample_in_batch, **changes):
    """Train on a dataset with a tiny configuration."""
    config = tiny_config(**changes)
    checkpoint = Checkpoint(folder / "run.safetensors", "this run")
    return train(build_training_data(data, config), sampler, config, checkpoint)


def virtual(context):
    """Vectors that are no item's: each positive, turned a little, once per row."""
    count = len(context.positives)
    turned = torch.roll(context.positives, 1, dims=1)[None].expand(count, -1, -1)
    log_q = torch.zeros(count, count, device=turned.device)
    return SampledNegatives(turned, log_q, torch.zeros_like(log_q, dtype=torch.bool))


def not_a_number(context):
    drawn = sample_in_batch(context)
    return dataclasses.replace(drawn, log_q=drawn.log_q * math.nan)


def all_masked(context):
    drawn = sample_in_batch(context)
    return dataclasses.replace(drawn, is_masked=torch.ones_like(drawn.is_masked))


def recall_of(done, data):
    training_data = build_training_data(data, tiny_config())
    vectors = training_data.features.encode_all(done.towers.item)
    return validation_recall(done.towers.user, vectors, training_data.validation)


@pytest.mark.parametrize("sampler", [sample_in_batch, UniformSampler(64)])
def test_training_learns_that_even_users_take_even_items(world_data, tmp_path, sampler):
    done = trained(world_data, tmp_path, sampler)
    losses = [one["loss"] for one in done.progress.curve]
    assert losses == sorted(losses, reverse=True)
    assert done.progress.best_recall > 0.5  # 50 of the 80 of the parity are 0.62, of all items 0.31


def test_a_sampler_of_virtual_vectors_trains_unchanged(world_data, tmp_path):
    done = trained(world_data, tmp_path, virtual, epochs=2)
    assert done.progress.curve[1]["loss"] < done.progress.curve[0]["loss"]
    assert done.progress.step == 2 * math.ceil(world_targets(world_data) / 64)


def world_targets(data):
    """Each user's training interactions but the first are targets."""
    return int((data.interactions.parts == 0).sum()) - len(data.user_ids)


def test_the_same_seed_trains_the_same_weights(world_data, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (trained(world_data, tmp_path / name, epochs=1) for name in ("one", "two"))
    pairs = zip(one.towers.parameters(), two.towers.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_a_loss_that_is_not_finite_stops_the_run_with_the_place_and_the_remedy(
    world_data, tmp_path
):
    told = r"epoch 1, batch 1: the loss is nan, expected a finite number; lower learning_rate"
    with pytest.raises(TrainingError, match=told):
        trained(world_data, tmp_path, not_a_number)


def test_weights_that_went_astray_stop_the_run_before_they_are_measured(world_data, tmp_path):
    def infinite_gradient(context):
        drawn = sample_in_batch(context)
        root = torch.sqrt(context.positives.sum() * 0)  # 0, but its gradient is not finite
        return dataclasses.replace(drawn, log_q=drawn.log_q + root)

    with pytest.raises(TrainingError, match=r"epoch 1.*not finite"):
        trained(world_data, tmp_path, infinite_gradient, batch_size=65_536)


def test_an_epoch_whose_loss_is_exactly_0_stops_the_run(world_data, tmp_path):
    with pytest.raises(TrainingError, match=r"the loss is exactly 0.*larger batch_size"):
        trained(world_data, tmp_path, all_masked)


def test_the_best_weights_are_kept_though_later_ones_are_worse(world_data, tmp_path):
    def spoiled_later(context):
        drawn = sample_in_batch(context)
        if context.step < 14:  # one epoch
            return drawn
        nothing = torch.zeros_like(drawn.is_masked)
        return dataclasses.replace(drawn, vectors=-drawn.vectors, is_masked=nothing)

    done = trained(world_data, tmp_path, spoiled_later, epochs=3, learning_rate=0.02)
    recalls = [one["recall@50"] for one in done.progress.curve]
    assert recalls[done.progress.best_epoch] == max(recalls) == done.progress.best_recall
    assert recalls[-1] < max(recalls)
    assert recall_of(done, world_data) == pytest.approx(done.progress.best_recall)


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_after_as_many_epochs_without_a_better_one(world_data, tmp_path, patience):
    done = trained(
        world_data, tmp_path, epochs=50, patience=patience, learning_rate=1e-12
    )  # nothing is learned: the first epoch stays the best
    assert (len(done.progress.curve), done.progress.best_epoch) == (1 + patience, 0)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(world_data, tmp_path, capsys):
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()

    def stops_once(context):
        if context.step == 20 and not (tmp_path / "was here").exists():
            (tmp_path / "was here").touch()
            raise InterruptedError
        return sample_in_batch(context)

    whole = trained(world_data, tmp_path / "whole", epochs=3)
    with pytest.raises(InterruptedError):
        trained(world_data, tmp_path / "stopped", stops_once, epochs=3, checkpoint_interval_s=0)
    again = trained(world_data, tmp_path / "stopped", stops_once, epochs=3)
    assert "going on from epoch 2, batch" in capsys.readouterr().out
    pairs = zip(whole.towers.parameters(), again.towers.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)
    assert [one["loss"] for one in again.progress.curve] == [
        one["loss"] for one in whole.progress.curve
    ]


def test_a_run_stopped_after_its_last_epoch_only_hands_over(world_data, tmp_path):
    done = trained(world_data, tmp_path, epochs=2)
    again = trained(world_data, tmp_path, not_a_number, epochs=2)  # no step is taken
    assert again.progress.curve == done.progress.curve


def test_the_pipeline_trains_with_the_sampler_and_dropout_of_its_configuration(
    world_data, tmp_path
):
    config = tiny_config(epochs=1, sampler={"name": "uniform", "count": 32})
    checkpoint = Checkpoint(tmp_path / "one.safetensors", "this run")
    sampler = build_sampler(config.training.sampler)
    done = train(build_training_data(world_data, config), sampler, config, checkpoint)
    other = trained(world_data, tmp_path, UniformSampler(32), epochs=1)
    assert [one["loss"] for one in done.progress.curve] == [
        one["loss"] for one in other.progress.curve
    ]


def test_too_few_targets_are_refused(world_data):
    lonely = dataclasses.replace(
        world_data.interactions,
        user_rows=world_data.interactions.user_rows[:0],
        item_rows=world_data.interactions.item_rows[:0],
        parts=world_data.interactions.parts[:0],
    )
    with pytest.raises(TrainingError, match="0 targets, expected at least 2"):
        build_training_data(dataclasses.replace(world_data, interactions=lonely), tiny_config())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_asking_for_a_cuda_that_is_not_there_is_refused(world_data):
    with pytest.raises(TrainingError, match="torch sees no CUDA device"):
        build_training_data(world_data, tiny_config(device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("sampler", [sample_in_batch, virtual])
def test_the_world_is_learned_on_an_accelerator(world_data, tmp_path, sampler):
    config = tiny_config(device="cuda")
    checkpoint = Checkpoint(tmp_path / "run.safetensors", "this run")
    done = train(build_training_data(world_data, config), sampler, config, checkpoint)
    assert done.progress.curve[-1]["loss"] < done.progress.curve[0]["loss"]
    assert next(done.towers.parameters()).is_cuda
