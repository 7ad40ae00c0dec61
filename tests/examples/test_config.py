from pathlib import Path

from trainer.config import RunConfig, load_config
from trainer.config_docs import example_config

FILE = Path(__file__).parents[2] / "examples" / "config.toml"


def test_example_config_equals_command_output():
    assert FILE.read_text() == example_config()


def test_example_config_holds_the_defaults():
    assert load_config(FILE) == RunConfig()
