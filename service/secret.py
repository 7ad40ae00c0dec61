"""Secrets: given as such or in a file; never printed, logged or shown in a message."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from index.errors import ConfigError

MOST_BYTES = 65_536
REDIS_SCHEMES = ("redis", "rediss", "unix")


def read_secret(name: str, given: SecretStr, file: Path | None) -> str:
    """Return a secret from its setting or from the file beside it; empty where neither is set.

    name  of the setting, for messages: with `_FILE` it names the file's

    Raises ConfigError if both are set, or the file cannot be read.
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
            return stream.read(MOST_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{name}_FILE: {file} cannot be read ({type(error).__name__}); expected a text "
            "file that holds the secret and nothing else: mount it, or let this user read it"
        ) from error


def check_redis_url(url: str) -> None:
    """Refuse what is no URL of Redis, without repeating it: it may hold a password.

    Raises ConfigError.
    """
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in REDIS_SCHEMES and parts.port != 0
    except ValueError:  # a port that is no number
        is_right = False
    if not is_right:
        raise ConfigError(
            "ESANS_REDIS_URL: what was found is no URL of Redis (and not shown: it may hold a "
            "password), expected redis://[[user]:password@]host[:port][/database], rediss:// "
            "for TLS or unix://path; correct it, or leave it empty for the folder"
        )
