"""Which store of cluster maps an environment means: the one place that knows its variables."""

from collections.abc import Mapping
from pathlib import Path

from index.errors import ConfigError

URL_VARIABLE = "ESANS_REDIS_URL"
FILE_VARIABLE = "ESANS_REDIS_URL_FILE"
NAMESPACE_VARIABLE = "ESANS_NAMESPACE"
NAMESPACE = "esans"
MOST_BYTES = 65_536


def address_from(environment: Mapping[str, str]) -> str | None:
    """Return the address of Redis, or what the file named instead of it holds; None: neither.

    Raises ConfigError if both are set, or the file cannot be read, or is empty.
    """
    url = environment.get(URL_VARIABLE, "").strip()
    file = environment.get(FILE_VARIABLE, "")
    if url and file:
        raise ConfigError(
            f"{URL_VARIABLE} and {FILE_VARIABLE}: both are set, expected one; remove the other"
        )
    return _held_by(Path(file)) if file else url or None


def namespace_from(environment: Mapping[str, str]) -> str:
    """Return what the keys in Redis begin with."""
    return environment.get(NAMESPACE_VARIABLE) or NAMESPACE


def _held_by(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            held = stream.read(MOST_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{FILE_VARIABLE}: {file} cannot be read ({type(error).__name__}); expected a text "
            "file that holds the address of Redis and nothing else; mount it, or let this user "
            "read it"
        ) from None  # the cause may quote what it holds
    if not held:
        raise ConfigError(f"{FILE_VARIABLE}: {file} is empty; write the address into it")
    return held
