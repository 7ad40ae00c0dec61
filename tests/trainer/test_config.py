import tomllib

import pytest

from index.errors import ConfigError
from trainer.__main__ import main
from trainer.config import RunConfig, check_config, read_config
from trainer.samplers.config import UniformConfig


def read(folder, text):
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path)


def test_an_empty_file_is_the_defaults(tmp_path):
    assert read(tmp_path, "") == RunConfig()


def test_what_the_config_command_prints_parses_back_to_exactly_the_defaults(tmp_path, capsys):
    assert main(["config"]) == 0
    printed = capsys.readouterr().out
    assert tomllib.loads(printed) == RunConfig().model_dump(mode="json")
    assert read(tmp_path, printed) == RunConfig()


def test_every_key_is_explained_by_the_config_command(capsys):
    main(["config"])
    lines = capsys.readouterr().out.splitlines()
    keys = [place for place, line in enumerate(lines) if line and line[0] not in "#[ "]
    assert len(keys) > 15
    assert [lines[place] for place in keys if not lines[place - 1].startswith(("#", "["))] == []


def test_the_table_of_another_sampler_is_read(tmp_path):
    text = '[training.sampler]\nname = "uniform"\ncount = 77'
    assert read(tmp_path, text).training.sampler == UniformConfig(name="uniform", count=77)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sed = 1", r"sed: Extra inputs are not permitted"),
        ("[training]\nepoch = 1", r"training\.epoch: Extra inputs are not permitted"),
        ("[trainings]", r"trainings: Extra inputs"),
        ("[training]\nepochs = 0", r"training\.epochs: .*greater than or equal to 1.*found 0"),
        ("[towers]\nid_dropout = 1.0", r"towers\.id_dropout: .*less than 1.*found 1\.0"),
        ("[training]\ntemperature = nan", r"training\.temperature: .*finite.*found nan"),
        ("[training]\nlearning_rate = inf", r"training\.learning_rate: .*finite.*found inf"),
        ("[training]\nepochs = 2.5", r"training\.epochs: .*integer.*found 2\.5"),
        ('[data]\nsplit = "middle"', r"data\.split: .*'leave-last-two'.*found 'middle'"),
        (
            '[training.sampler]\nname = "uniformly"',
            r"training\.sampler: .*'uniformly'.*'in-batch', .*'uniform'",
        ),
        ("[training.sampler]\ncount = 3", r"training\.sampler: .*name"),
        (
            '[training.sampler]\nname = "in-batch"\ncount = 3',
            r"training\.sampler.*count: Extra inputs",
        ),
    ],
)
def test_a_key_at_fault_is_named_with_what_was_found_and_expected(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "run.toml") in str(caught.value)
    assert "python -m trainer config" in str(caught.value)


def test_all_keys_at_fault_are_told_together():
    with pytest.raises(ConfigError, match=r"seed.*\n.*towers\.embedding_dim.*\n.*bundle\.nam:"):
        check_config({"seed": -1, "towers": {"embedding_dim": 1}, "bundle": {"nam": "x"}}, "here")


@pytest.mark.parametrize(
    ("content", "told"), [(b"[training", "cannot be read as TOML"), (b"\xff", "cannot be read")]
)
def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path, content, told):
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"run\.toml: {told}"):
        read_config(tmp_path / "run.toml")


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read"):
        read_config(tmp_path / "absent.toml")
