"""Options and error messages of `python -m trainer run`."""

import json
import math
import shlex
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.search.query import Query
from index.search.retriever import Retriever
from tests.support.synthetic_bundle import publish_handmade, retrieve_single
from tests.support.training_runs import run, write_config
from tests.support.training_shops import interactions, write_shop
from trainer.__main__ import main
from trainer.config import RunConfig
from trainer.pipeline import build_checkpoint, has_columns


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


def test_run_without_histories_publishes_no_users(published):
    _, bundles = published
    folder = BundleRegistry(bundles).current()
    assert [path.name for path in folder.iterdir() if "user_ids" in path.name] == []
    assert [path.name for path in folder.iterdir() if "histories" in path.name] == []
    assert open_bundle(folder).histories is None
    for path in folder.iterdir():
        assert b"user-1" not in path.read_bytes()


def test_run_seed_option_overrides_config_file(published):
    _, bundles = published
    assert open_bundle(BundleRegistry(bundles).current()).manifest.run["config"]["seed"] == 7


def test_run_skip_if_same_skips_identical_run(published, world, capsys):
    config, bundles = published
    assert run(world, bundles, config, "--seed", "7", "--skip", "if-same") == 0
    assert "the current bundle has the same data and configuration" in capsys.readouterr().out
    assert len(BundleRegistry(bundles).versions()) == 1


def test_run_skip_if_same_trains_on_different_data(config, tmp_path, capsys):
    bundles = tmp_path / "bundles"
    publish_handmade(bundles)
    assert run(write_shop(tmp_path), bundles, config, "--skip", "if-same") == 1
    output = capsys.readouterr().err  # training starts, but the shop is too small
    assert "training part: found 1 targets, expected at least 2" in output


def test_run_skip_if_same_trains_on_changed_attributes(published, world, tmp_path):
    config, bundles = published
    shutil.copytree(bundles, tmp_path / "bundles")
    shutil.copytree(world, tmp_path / "shop")
    items = pq.read_table(world / "items.parquet")
    days = pa.array(range(len(items)), pa.timestamp("s"))  # a type that Parquet does not keep
    pq.write_table(items.append_column("since", days), tmp_path / "shop" / "items.parquet")
    options = (tmp_path / "bundles", config, "--seed", "7", "--skip", "if-same")
    for data, versions in ((tmp_path / "shop", 2), (tmp_path / "shop", 2), (world, 3)):
        assert run(data, *options) == 0
        assert len(BundleRegistry(tmp_path / "bundles").versions()) == versions


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"price": [1.5, math.nan, None]}, True),
        ({"price": [1.5, None, math.nan]}, False),
        ({"price": [2.5, math.nan, None]}, False),
        ({"price": pa.array([1.5, math.nan, None], pa.float32())}, False),
        ({"brand": pa.nulls(3, pa.string())}, True),  # a column of items that were added later
        ({"brand": [None, "b", None]}, False),
        ({"empty": pa.array([None, None, None], pa.int64())}, True),  # typed by added items
        ({"empty": [None, 1, None]}, False),
        ({"title": ["x", "y", "other"]}, False),
        ({"title": None}, False),
    ],
)
def test_has_columns_compares_values_and_types(changes, expected):
    table = {"title": ["x", "y", "z"], "price": [1.5, math.nan, None], "empty": pa.nulls(3)}
    columns = {name: values for name, values in (table | changes).items() if values is not None}
    published = pa.concat_tables(2 * [pa.table(columns)])
    assert has_columns(published, pa.table(table)) == expected
    assert not has_columns(published.slice(0, 2), pa.table(table))


def test_run_skip_if_same_compares_the_behaviour_file(world, tmp_path):
    behaviour = tmp_path / "behaviour.npy"
    sections = {"training": {"epochs": 1}, "clusters": {"behaviour_file": str(behaviour)}}
    config = write_config(tmp_path / "run.toml", sections)
    rows = np.random.default_rng(1).standard_normal((160, 4))
    for values, num_versions in ((rows, 1), (rows, 1), (-rows, 2)):
        np.save(behaviour, values)
        assert run(world, tmp_path / "bundles", config, "--skip", "if-same", "--force") == 0
        assert len(BundleRegistry(tmp_path / "bundles").versions()) == num_versions


def test_build_checkpoint_depends_on_the_behaviour_file(world_data, tmp_path):
    paths = [
        build_checkpoint(tmp_path, world_data, RunConfig(), behaviour=digest).path
        for digest in (None, "a", "b")
    ]
    assert len(set(paths)) == 3


def test_run_skip_if_any_skips_with_a_current_bundle(config, tmp_path, capsys):
    bundles = tmp_path / "bundles"
    version = publish_handmade(bundles)
    absent = tmp_path / "not even there"
    assert run(absent, bundles, config, "--skip", "if-any") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert BundleRegistry(bundles).versions() == [version]


def test_run_only_if_better_keeps_an_equal_bundle(published, world, capsys):
    config, bundles = published
    before = BundleRegistry(bundles).pointer()
    assert run(world, bundles, config, "--seed", "7", "--only-if-better") == 0
    output = capsys.readouterr().out
    (version,) = set(BundleRegistry(bundles).versions()) - {before.version}
    assert BundleRegistry(bundles).pointer() == before
    assert f"{bundles / version}: published but not made current" in output
    assert f"{sys.executable} -m index rollback {bundles} {version}" in output
    assert f"compared with the current bundle {before.version} (same test users)" in output
    assert "serve it" not in output
    shutil.rmtree(bundles / version)


def test_run_only_if_better_replaces_without_metrics(world, config, tmp_path, capsys):
    bundles = tmp_path / "it's here"
    before = publish_handmade(bundles)
    assert run(world, bundles, config, "--only-if-better") == 0
    output = capsys.readouterr().out
    assert "(other test users)" in output
    assert BundleRegistry(bundles).pointer().previous == before
    serve, query = (line.partition(": ")[2] for line in output.splitlines()[-2:])
    assert shlex.split(serve)[-4:] == ["-m", "service", "--bundles", str(bundles)]
    example = json.loads(shlex.split(query)[-1])
    bundle = open_bundle(BundleRegistry(bundles).current())
    assert retrieve_single(Retriever(bundle), Query(10, user_id=example["user_id"])).item_ids


def test_run_rejects_force_with_only_if_better(tmp_path, config):
    with pytest.raises(SystemExit):
        run(tmp_path, tmp_path / "bundles", config, "--force", "--only-if-better")


def test_run_validates_target_before_data(tmp_path, config, capsys):
    (tmp_path / "taken").touch()
    absent = tmp_path / "not even there"
    assert run(absent, tmp_path / "taken" / "bundles", config) == 1
    assert "choose another folder" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_run_validates_device_before_data(tmp_path, capsys):
    config = write_config(tmp_path / "run.toml", {"training": {"device": "cuda"}})
    assert run(tmp_path / "not even there", tmp_path / "bundles", config) == 1
    assert "training.device" in capsys.readouterr().err


def test_clusters_validates_target_before_data(tmp_path, capsys):
    (tmp_path / "taken").touch()
    options = ["--data", str(tmp_path / "not there"), "--out", str(tmp_path / "taken" / "map")]
    assert main(["clusters", *options]) == 1
    assert "choose another folder" in capsys.readouterr().err


def test_run_prints_published_columns_with_reasons(world, tmp_path, capsys):
    sections = {"training": {"epochs": 1}, "bundle": {"attributes": ["title"]}}
    config = write_config(tmp_path / "run.toml", sections)
    assert run(world, tmp_path / "bundles", config, "--force") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "attributes: 'title'; not published: 'parity' (not in bundle.attributes)" in lines
    reason = "(unique, or more than 1,000 values)"
    assert f"filters: 'parity'; not published: 'title' {reason}" in lines


def test_run_reports_invalid_dataset_without_traceback(config, tmp_path, capsys):
    bundles = tmp_path / "bundles"
    shop = write_shop(tmp_path, interactions(item_id=["a", "b", "c", "zz", "d", "c", "b"]))
    assert run(shop, bundles, config) == 1
    output = capsys.readouterr()
    assert "zz" in output.err
    assert "Traceback" not in output.err
    assert not bundles.exists()


def test_run_reports_invalid_config_without_traceback(tmp_path, capsys):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("sed = 1")
    assert run(tmp_path, tmp_path / "bundles", wrong) == 1
    assert "sed: Extra inputs" in capsys.readouterr().err


def test_run_reports_seed_out_of_range(config, tmp_path, capsys):
    assert run(tmp_path, tmp_path / "bundles", config, "--seed", "-1") == 1
    assert "--seed: invalid configuration" in capsys.readouterr().err


@pytest.fixture
def popular_test_item(tmp_path):
    """A dataset whose test item is the most popular, which the training histories hide."""
    folder = tmp_path / "odd"
    folder.mkdir()
    users, items, parts = [], [], []
    for user in range(60):
        history = [f"i{user % 5 * 12 + number}" for number in range(5)]
        hits = ["hit"] if user < 30 else []
        held_out = [] if hits else ["hit"]
        for part, part_items in (
            ("train", history + hits),
            ("valid", [f"i{user + 60}"]),
            ("test", held_out),
        ):
            users += [f"u{user}"] * len(part_items)
            items += part_items
            parts += [part] * len(part_items)
    catalogue = {"item_id": [*(f"i{row}" for row in range(400)), "hit"]}
    times = list(range(len(users)))
    taken = {"user_id": users, "item_id": items, "timestamp": times, "split": parts}
    return write_shop(folder, taken, catalogue, visual=torch.randn(401, 3).numpy())


def test_run_worse_than_popularity_is_not_made_current(popular_test_item, tmp_path, capsys):
    sections = {"training": {"epochs": 1, "learning_rate": 1e-9}}
    config = write_config(tmp_path / "run.toml", sections)
    bundles = tmp_path / "bundles"
    assert run(popular_test_item, bundles, config) == 1
    output = capsys.readouterr().err
    (version,) = BundleRegistry(bundles).versions()
    assert BundleRegistry(bundles).pointer() is None
    assert "published but not made current" in output
    assert f"{sys.executable} -m index rollback {bundles} {version}" in output
    assert list((bundles / ".checkpoints").iterdir()) == []
    assert run(popular_test_item, bundles, config, "--force") == 0
    assert BundleRegistry(bundles).pointer() is not None


def test_main_prints_help_and_rejects_unknown_command(capsys):
    for words, status in ((["--help"], 0), (["run", "--help"], 0), (["walk"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == status
    assert "--skip" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        "run --bundles b --data s3://data",
        "run --data d --bundles s3://bundles",
        "clusters --data s3://data",
        "clusters --from s3://map --publish",
        "report --bundles s3://bundles",
    ],
)
def test_main_url_for_folder_is_rejected(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(command.split())
    assert "found the URL 's3://" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
