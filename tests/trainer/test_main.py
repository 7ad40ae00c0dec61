"""What the command does besides training: skip, refuse, force, say what went wrong."""

import pytest
import torch

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from tests.support.synthetic_bundle import publish_handmade
from tests.support.training_runs import run, write_config
from tests.support.training_shops import interactions, write_shop
from trainer.__main__ import main


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "run.toml", {"training": {"epochs": 1}})


@pytest.fixture(scope="module")
def published(world, tmp_path_factory):
    """A run of one epoch without histories, its configuration and its bundles."""
    folder = tmp_path_factory.mktemp("published")
    sections = {"training": {"epochs": 1}, "bundle": {"histories": False}}
    config = write_config(folder / "run.toml", sections)
    assert run(world, folder / "bundles", config, "--seed", "7", "--force") == 0
    return config, folder / "bundles"


def test_a_run_that_may_not_publish_histories_leaves_out_users(published):
    _, bundles = published
    folder = BundleRegistry(bundles).current()
    assert [path.name for path in folder.iterdir() if "user_ids" in path.name] == []
    assert [path.name for path in folder.iterdir() if "histories" in path.name] == []
    assert open_bundle(folder).histories is None
    for path in folder.iterdir():
        assert b"user-1" not in path.read_bytes()


def test_the_seed_of_the_command_line_overrides_the_files(published):
    _, bundles = published
    assert open_bundle(BundleRegistry(bundles).current()).manifest.run["config"]["seed"] == 7


def test_skip_if_same_does_nothing_where_data_and_configuration_are_the_same(
    published, world, capsys
):
    config, bundles = published
    assert run(world, bundles, config, "--seed", "7", "--skip", "if-same") == 0
    assert "the current bundle is of this data and configuration" in capsys.readouterr().out
    assert len(BundleRegistry(bundles).versions()) == 1


def test_skip_if_same_trains_where_the_data_differ(config, tmp_path, capsys):
    bundles = tmp_path / "bundles"
    publish_handmade(bundles)
    assert run(write_shop(tmp_path), bundles, config, "--skip", "if-same") == 1
    told = capsys.readouterr().err  # it set about training, for which the shop is too small
    assert "the training part has 1 targets, expected at least 2" in told


def test_skip_if_any_does_nothing_where_anything_is_current(config, tmp_path, capsys):
    bundles = tmp_path / "bundles"
    version = publish_handmade(bundles)
    absent = tmp_path / "not even there"
    assert run(absent, bundles, config, "--skip", "if-any") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert BundleRegistry(bundles).versions() == [version]


def test_a_dataset_at_fault_is_told_without_traceback_and_nothing_is_published(
    config, tmp_path, capsys
):
    bundles = tmp_path / "bundles"
    shop = write_shop(tmp_path, interactions(item_id=["a", "b", "c", "zz", "d", "c", "b"]))
    assert run(shop, bundles, config) == 1
    told = capsys.readouterr()
    assert "1 fault found" in told.err
    assert "zz" in told.err
    assert "Traceback" not in told.err
    assert not bundles.exists()


def test_a_configuration_at_fault_is_told_without_traceback(tmp_path, capsys):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("sed = 1")
    assert run(tmp_path, tmp_path / "bundles", wrong) == 1
    assert "sed: Extra inputs" in capsys.readouterr().err


def test_a_seed_out_of_range_is_told_by_the_name_of_its_option(config, tmp_path, capsys):
    assert run(tmp_path, tmp_path / "bundles", config, "--seed", "-1") == 1
    assert "--seed: cannot be used" in capsys.readouterr().err


@pytest.fixture
def odd_one_out(tmp_path):
    """A world whose test items are the popular ones, and whose training tells otherwise."""
    folder = tmp_path / "odd"
    folder.mkdir()
    users, items, parts = [], [], []
    for user in range(60):
        took = [f"i{user % 5 * 12 + one}" for one in range(5)]
        hits = ["hit"] if user < 30 else []
        held_out = [] if hits else ["hit"]
        for part, own in (
            ("train", took + hits),
            ("valid", [f"i{user + 60}"]),
            ("test", held_out),
        ):
            users += [f"u{user}"] * len(own)
            items += own
            parts += [part] * len(own)
    catalogue = {"item_id": [*(f"i{one}" for one in range(400)), "hit"]}
    times = list(range(len(users)))
    taken = {"user_id": users, "item_id": items, "timestamp": times, "split": parts}
    return write_shop(folder, taken, catalogue, visual=torch.randn(401, 3).numpy())


def test_a_model_that_popularity_beats_is_published_but_not_made_current(
    odd_one_out, tmp_path, capsys
):
    sections = {"training": {"epochs": 1, "learning_rate": 1e-9}}
    config = write_config(tmp_path / "run.toml", sections)
    bundles = tmp_path / "bundles"
    assert run(odd_one_out, bundles, config) == 1
    told = capsys.readouterr().err
    (version,) = BundleRegistry(bundles).versions()
    assert BundleRegistry(bundles).pointer() is None
    assert "published but not made current" in told
    assert f"python -m index rollback {bundles} {version}" in told
    assert list((bundles / ".checkpoints").iterdir()) == []
    assert run(odd_one_out, bundles, config, "--force") == 0
    assert BundleRegistry(bundles).pointer() is not None


def test_help_is_printed_and_an_unknown_command_refused(capsys):
    for words, status in ((["--help"], 0), (["run", "--help"], 0), (["walk"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == status
    assert "--skip" in capsys.readouterr().out
