"""Options that several commands share, and checks of their values."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from index.errors import ConfigError
from index.fsio import parse_path

if TYPE_CHECKING:
    from trainer.config import RunConfig


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_run_config` reads."""
    parser.add_argument(
        "--config", type=parse_path, metavar="FILE", help="TOML; see `python -m trainer config`"
    )
    parser.add_argument("--seed", type=int, metavar="SEED", help="overrides the file's seed")


def load_run_config(parsed: argparse.Namespace) -> "RunConfig":
    """Load the configuration file, or the defaults, and apply `--seed`."""
    from trainer.config import load_config, validate_config

    config = load_config(parsed.config) if parsed.config else validate_config({}, "defaults")
    if parsed.seed is None:
        return config
    return validate_config(config.model_dump(mode="json") | {"seed": parsed.seed}, "--seed")


def check_writable(option: str, folder: Path) -> None:
    """Check that a folder can be written or created, before hours of work.

    Raises:
        ConfigError: it cannot.
    """
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{option} {folder}: found {existing}, which is not a folder that this user can write; "
            "choose another folder, or correct its permissions and repeat the command"
        )
