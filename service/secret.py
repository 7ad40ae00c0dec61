"""Secrets: given as such or in a file; never printed, logged or shown in a message."""

from pathlib import Path

from pydantic import SecretStr

from index.errors import ConfigError
from index.storage.address import read_secret_file


def read_secret(name: str, given: SecretStr, file: Path | None) -> str:
    """Return a secret from its setting or from the file beside it; empty where neither is set.

    name  of the setting, for messages: with `_FILE` it names the file's

    Raises ConfigError if both are set, or the file cannot be read or is empty.
    """
    value = given.get_secret_value().strip()
    if file is None:
        return value
    if value:
        raise ConfigError(
            f"{name} and {name}_FILE: both are set, expected one; remove the other"
        )
    return read_secret_file(file, f"{name}_FILE")
