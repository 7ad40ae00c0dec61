from pathlib import Path

from trainer.config import RunConfig, load_config
from trainer.config_docs import example_config

FILE = Path(__file__).parents[2] / "examples" / "config.toml"


def test_the_ready_configuration_is_what_the_command_prints():
    assert FILE.read_text() == example_config()


def test_the_ready_configuration_holds_the_defaults():
    assert load_config(FILE) == RunConfig()
