import threading

import pytest
import torch

from index.errors import TrainingError
from trainer.checkpoint import Checkpoint, Progress, optimizer_tensors, restore_optimizer


def trained_layer(seed):
    """A layer and its optimizer after two training steps."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    for _ in range(2):
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
    return layer, optimizer


@pytest.fixture
def checkpoint(tmp_path):
    return Checkpoint(tmp_path / "checkpoints" / "run.safetensors", "this run")


PROGRESS = Progress(3, 7, 77, 0.1 + 0.2, 0.25, 1, [{"loss": 1 / 3, "recall@50": 0.5}] * 2)


def test_checkpoint_load_returns_exactly_what_was_saved(checkpoint):
    layer, optimizer = trained_layer(0)
    groups = {"current": layer.state_dict(), "optimizer": optimizer_tensors(optimizer)}
    checkpoint.save(groups, PROGRESS)
    checkpoint.wait()
    loaded, progress = checkpoint.load()
    assert progress == PROGRESS
    assert loaded.keys() == groups.keys()
    for group, tensors in groups.items():
        assert loaded[group].keys() == tensors.keys()
        assert all(torch.equal(loaded[group][name], tensor) for name, tensor in tensors.items())


def test_restored_optimizer_continues_identically(checkpoint):
    layer, optimizer = trained_layer(0)
    groups = {"current": layer.state_dict(), "optimizer": optimizer_tensors(optimizer)}
    checkpoint.save(groups, PROGRESS)
    checkpoint.wait()
    other, fresh = trained_layer(1)
    loaded, _ = checkpoint.load()
    other.load_state_dict(loaded["current"])
    restore_optimizer(fresh, loaded["optimizer"])
    for model, model_optimizer in ((layer, optimizer), (other, fresh)):
        model_optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        model_optimizer.step()
    assert torch.equal(layer.weight, other.weight)


def test_checkpoint_save_replaces_file_and_cleans_up(checkpoint):
    for step in (1, 2):
        checkpoint.save({"current": {"a": torch.tensor([float(step)])}}, Progress(step=step))
        checkpoint.wait()
    groups, progress = checkpoint.load()
    assert (groups["current"]["a"].item(), progress.step) == (2, 2)
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["run.safetensors"]


def test_checkpoint_load_before_first_save_returns_none(checkpoint):
    assert checkpoint.load() is None


def test_checkpoint_of_another_run_is_ignored(checkpoint):
    checkpoint.save({"current": {"a": torch.ones(1)}}, PROGRESS)
    checkpoint.wait()
    assert Checkpoint(checkpoint.path, "another run").load() is None


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_checkpoint_load_rejects_truncated_file(checkpoint, kept):
    checkpoint.save({"current": {"a": torch.ones(100)}}, PROGRESS)
    checkpoint.wait()
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:kept])
    with pytest.raises(TrainingError, match=r"run\.safetensors: .*delete it"):
        checkpoint.load()


def test_checkpoint_remove_deletes_interrupted_saves_only(checkpoint):
    checkpoint.save({"current": {"a": torch.ones(1)}}, PROGRESS)
    checkpoint.wait()
    interrupted = checkpoint.path.with_name("run.4711")
    interrupted.mkdir()
    other = checkpoint.path.with_name("other.safetensors")
    # .tmp4711 is the temporary file of safetensors
    for path in (interrupted / "run.safetensors", interrupted / ".tmp4711", other):
        path.write_bytes(b"half")
    checkpoint.remove()
    checkpoint.remove()
    assert list(checkpoint.path.parent.iterdir()) == [other]


def test_stale_epochs_count_from_the_best_epoch():
    assert Progress().stale_epochs == 0
    assert Progress(best_epoch=1, curve=[{}] * 2).stale_epochs == 0
    assert Progress(best_epoch=1, curve=[{}] * 5).stale_epochs == 3


def test_checkpoint_is_replaced_only_when_synced(checkpoint):
    """The thread is held up by another job: the state saved before remains."""
    checkpoint.save({"current": {"a": torch.zeros(1)}}, Progress(step=1))
    checkpoint.wait()
    is_free = threading.Event()
    checkpoint._thread.submit(is_free.wait)
    checkpoint.save({"current": {"a": torch.ones(1)}}, Progress(step=2))
    assert checkpoint.is_syncing
    assert checkpoint.load()[1].step == 1
    is_free.set()
    checkpoint.wait()
    assert not checkpoint.is_syncing
    assert checkpoint.load()[1].step == 2


def test_checkpoint_later_changes_are_not_saved(checkpoint):
    weight = torch.zeros(1_000)
    checkpoint.save({"current": {"a": weight}}, PROGRESS)
    weight += 1  # the next step
    checkpoint.wait()
    assert not checkpoint.load()[0]["current"]["a"].any()


def test_checkpoint_failed_sync_raises_at_next_save(checkpoint):
    checkpoint.save({"current": {"a": torch.zeros(1)}}, PROGRESS)
    checkpoint.wait()
    is_free = threading.Event()
    checkpoint._thread.submit(is_free.wait)
    checkpoint.save({"current": {"a": torch.zeros(1)}}, PROGRESS)
    checkpoint.path.unlink()
    checkpoint.path.mkdir()  # a file cannot replace a folder
    is_free.set()
    with pytest.raises(OSError, match="directory"):
        checkpoint.save({"current": {"a": torch.zeros(1)}}, PROGRESS)
