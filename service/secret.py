"""Secrets: given as such or in a file; never printed, logged or shown in a message."""

from pathlib import Path

from pydantic import SecretStr

from index.errors import ConfigError

MOST_BYTES = 65_536


def read_secret(name: str, given: SecretStr, file: Path | None) -> str:
    """Return a secret from its setting or from the file beside it; empty where neither is set.

    name  of the setting, for messages: with `_FILE` it names the file's

    Raises ConfigError if both are set, or the file cannot be read or is empty: who names a
    file wants a secret.
    """
    value = given.get_secret_value().strip()
    if file is None:
        return value
    if value:
        raise ConfigError(
            f"{name} and {name}_FILE: both are set, expected one; remove the other"
        )
    try:
        with file.open("rb") as stream:
            found = stream.read(MOST_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{name}_FILE: {file} cannot be read ({type(error).__name__}); expected a text "
            "file that holds the secret and nothing else: mount it, or let this user read it"
        ) from error
    if not found:
        raise ConfigError(
            f"{name}_FILE: {file} is empty, expected the secret; write it into the file, or "
            f"unset {name}_FILE"
        )
    return found
