import tomllib

import pytest

from index.errors import ConfigError
from trainer.__main__ import main
from trainer.config import RunConfig, load_config, validate_config
from trainer.samplers.config import UniformConfig


def read(folder, text):
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_load_config_empty_file_returns_defaults(tmp_path):
    assert read(tmp_path, "") == RunConfig()


def test_config_command_output_parses_to_defaults(tmp_path, capsys):
    assert main(["config"]) == 0
    printed = capsys.readouterr().out
    assert tomllib.loads(printed) == RunConfig().model_dump(mode="json")
    assert read(tmp_path, printed) == RunConfig()


def test_config_command_describes_every_key(capsys):
    main(["config"])
    lines = capsys.readouterr().out.splitlines()
    keys = [number for number, line in enumerate(lines) if line and line[0] not in "#[ "]
    assert len(keys) > 15
    assert [lines[key] for key in keys if not lines[key - 1].startswith(("#", "["))] == []


def test_load_config_reads_sampler_table(tmp_path):
    text = '[training.sampler]\nname = "uniform"\ncount = 77'
    assert read(tmp_path, text).training.sampler == UniformConfig(name="uniform", count=77)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 1", r"sed: Extra inputs are not permitted"),
        ("[training]\nepoch = 1", r"training\.epoch: Extra inputs are not permitted"),
        ("[trainings]", r"trainings: Extra inputs"),
        ("[training]\nepochs = 0", r"training\.epochs: .*greater than or equal to 1.*found 0"),
        ("[towers]\nid_dropout = 1.0", r"towers\.id_dropout: .*less than 1.*found 1\.0"),
        ("[training]\ntemperature = nan", r"training\.temperature: .*finite.*found nan"),
        ("[training]\nlearning_rate = inf", r"training\.learning_rate: .*finite.*found inf"),
        ("[training]\nweight_decay = 0.01", r"training: .*set dense_weight_decay"),
        ('[training]\nprecision = "half"', r"training\.precision: .*'bfloat16'.*found 'half'"),
        (
            "[evaluation]\nease_lambdas = [1e-20]",
            r"ease_lambdas\.0: .*greater than or equal to 0\.01",
        ),
        ("[evaluation]\nease_lambdas = [inf]", r"ease_lambdas\.0: .*finite number"),
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
def test_load_config_reports_invalid_key(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "run.toml") in str(caught.value)
    assert "python -m trainer config" in str(caught.value)


def test_validate_config_reports_all_invalid_keys():
    with pytest.raises(ConfigError, match=r"seed.*\n.*towers\.embedding_dim.*\n.*bundle\.nam:"):
        validate_config(
            {"seed": -1, "towers": {"embedding_dim": 1}, "bundle": {"nam": "x"}}, "here"
        )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sed = 1", "sed: .*; did you mean seed[?]"),
        ("[training]\nepoch = 1", r"training\.epoch: .*; did you mean epochs[?]"),
        ("[trainig]\nepochs = 1", "trainig: .*; did you mean training[?]"),
        ("embedding_dim = 8", r"embedding_dim: .*; did you mean towers\.embedding_dim[?]"),
        ("[training]\nweight_decay = 0.0", "; did you mean dense_weight_decay[?]"),
        ("[towers]\nseed = 1", r"towers\.seed: .*; did you mean seed[?]"),
        (
            '[training.sampler]\nname = "uniform"\ncounts = 3',
            r"uniform\.counts: .*; did you mean count[?]",
        ),
    ],
)
def test_load_config_suggests_similar_key(tmp_path, text, hint):
    with pytest.raises(ConfigError, match=hint):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "seed = 1979-05-27T07:32:00Z",
        f"seed = {10**4000}",
        f"seed = {hex(10**9000)}",
        "seed = {a = {b = [1]}}",
        "[[training]]",
        "training = 1",
        "[training.sampler]\nname = 1979-05-27",
        "[bundle]\nfilters = [1, []]",
        '[bundle]\nname = "\\u0000"\n[bundle.name]',
    ],
)
def test_load_config_reports_odd_values(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    "content", [b"[training", b"\xff", b"a = " + b"1" * 5_000, b"a = " + b"[" * 5_000]
)
def test_load_config_rejects_invalid_toml(tmp_path, content):
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml: cannot be read .*expected a TOML file"):
        load_config(tmp_path / "run.toml")


def test_load_config_rejects_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read"):
        load_config(tmp_path / "absent.toml")
