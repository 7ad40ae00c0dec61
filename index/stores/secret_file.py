"""A secret in a file of its own, as orchestrators mount one; shown in no message."""

from pathlib import Path

from index.errors import ConfigError

MOST_BYTES = 65_536


def secret_in(file: Path, variable: str) -> str:
    """Return the secret that a file holds, without the white space around it.

    variable  the one that names the file, for messages

    Raises ConfigError if it cannot be read or is empty: who names a file wants a secret.
    """
    try:
        with file.open("rb") as stream:
            held = stream.read(MOST_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{variable}: {file} cannot be read ({type(error).__name__}); expected a text file "
            "that holds the secret and nothing else; mount it, or let this user read it"
        ) from None  # the cause may quote what it holds
    if not held:
        raise ConfigError(
            f"{variable}: {file} is empty, expected the secret; write it into the file, or "
            f"unset {variable}"
        )
    return held
