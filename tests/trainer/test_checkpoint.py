import pytest
import torch

from index.errors import TrainingError
from trainer.checkpoint import Checkpoint, Progress, optimizer_tensors, restore_optimizer


def trained_a_little(seed):
    """A layer and its optimizer after two steps."""
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


def test_what_was_saved_is_loaded_to_the_last_bit(checkpoint):
    layer, optimizer = trained_a_little(0)
    groups = {"now": layer.state_dict(), "optimizer": optimizer_tensors(optimizer)}
    checkpoint.save(groups, PROGRESS)
    loaded, progress = checkpoint.load()
    assert progress == PROGRESS
    assert loaded.keys() == groups.keys()
    for group, tensors in groups.items():
        assert loaded[group].keys() == tensors.keys()
        assert all(torch.equal(loaded[group][name], one) for name, one in tensors.items())


def test_an_optimizer_goes_on_from_a_checkpoint_as_it_would_have(checkpoint):
    layer, optimizer = trained_a_little(0)
    groups = {"now": layer.state_dict(), "optimizer": optimizer_tensors(optimizer)}
    checkpoint.save(groups, PROGRESS)
    other, fresh = trained_a_little(1)
    loaded, _ = checkpoint.load()
    other.load_state_dict(loaded["now"])
    restore_optimizer(fresh, loaded["optimizer"])
    for one, its_optimizer in ((layer, optimizer), (other, fresh)):
        its_optimizer.zero_grad()
        one(torch.ones(1, 3)).square().sum().backward()
        its_optimizer.step()
    assert torch.equal(layer.weight, other.weight)


def test_saving_again_replaces_the_file_and_leaves_nothing_beside_it(checkpoint):
    for step in (1, 2):
        checkpoint.save({"now": {"a": torch.tensor([float(step)])}}, Progress(step=step))
    groups, progress = checkpoint.load()
    assert (groups["now"]["a"].item(), progress.step) == (2, 2)
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["run.safetensors"]


def test_there_is_nothing_to_load_before_the_first_save(checkpoint):
    assert checkpoint.load() is None


def test_the_checkpoint_of_another_run_is_passed_over(checkpoint):
    checkpoint.save({"now": {"a": torch.ones(1)}}, PROGRESS)
    assert Checkpoint(checkpoint.path, "another run").load() is None


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_a_truncated_checkpoint_is_refused_by_name_with_the_remedy(checkpoint, kept):
    checkpoint.save({"now": {"a": torch.ones(100)}}, PROGRESS)
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:kept])
    with pytest.raises(TrainingError, match=r"run\.safetensors: cannot be read.*remove it"):
        checkpoint.load()


def test_removing_a_checkpoint_takes_what_a_killed_save_left_and_no_other_runs(checkpoint):
    checkpoint.save({"now": {"a": torch.ones(1)}}, PROGRESS)
    half = checkpoint.path.with_name("run.4711")
    half.mkdir()
    other = checkpoint.path.with_name("other.safetensors")
    for path in (
        half / "run.safetensors",
        half / ".tmp4711",
        other,
    ):  # the second is safetensors'
        path.write_bytes(b"half")
    checkpoint.remove()
    checkpoint.remove()
    assert list(checkpoint.path.parent.iterdir()) == [other]


def test_stale_epochs_count_from_the_best_one():
    assert Progress().stale_epochs == 0
    assert Progress(best_epoch=1, curve=[{}] * 2).stale_epochs == 0
    assert Progress(best_epoch=1, curve=[{}] * 5).stale_epochs == 3
