"""The address of a Redis: where it is named, what it may hold, shown without secrets."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from index.errors import ConfigError

URL_VARIABLE = "ESANS_REDIS_URL"
FILE_VARIABLE = "ESANS_REDIS_URL_FILE"
NAMESPACE_VARIABLE = "ESANS_NAMESPACE"
VARIABLES = (URL_VARIABLE, FILE_VARIABLE, NAMESPACE_VARIABLE)
LIKE = ("ESANS_REDIS", "ESANS_NAME")  # whatever begins so and is none of these is misspelt
INJECTED = re.compile(r"ESANS_REDIS_(SERVICE_|PORT(_|$))")  # by a cluster, for `esans-redis`
NAMESPACE = "esans"
MAX_SECRET_BYTES = 65_536
NUMBER = ("a whole number below 100000", r"[0-9]{1,5}")
PATH = ("a path", r".+")
COMMON_OPTIONS = {"db": NUMBER, "client_name": ("a name without spaces", r"[!-~]+")}
TLS_OPTIONS = {
    "ssl_ca_certs": PATH,
    "ssl_ca_path": PATH,
    "ssl_certfile": PATH,
    "ssl_keyfile": PATH,
    "ssl_check_hostname": ("true or false", r"true|false"),
    "ssl_cert_reqs": ("none, optional or required", r"none|optional|required"),
}
OPTIONS = {
    "redis": COMMON_OPTIONS,
    "rediss": COMMON_OPTIONS | TLS_OPTIONS,
    "unix": COMMON_OPTIONS,
}
DATABASE = rf"/?|/{NUMBER[1]}"
NAMESPACE_PATTERN = r"[A-Za-z0-9_.-]{1,64}"
ENCODE = "percent-encode the password (`/` is %2F, `?` is %3F, `#` is %23, `@` is %40)"


def address_from(environment: Mapping[str, str]) -> str | None:
    """Return the address of Redis, or what the file named instead of it holds; None: neither.

    Raises ConfigError if both are set, the file cannot be read or is empty, or a variable is
    misspelt: a store beside the one that is meant would be taken in silence.
    """
    misspelt = sorted(
        name
        for name in environment
        if name.startswith(LIKE) and name not in VARIABLES and not INJECTED.match(name)
    )
    if misspelt:
        raise ConfigError(
            f"{', '.join(misspelt)}: not known, expected {', '.join(VARIABLES)}; correct the name"
        )
    file = environment.get(FILE_VARIABLE, "")
    return secret_from(environment.get(URL_VARIABLE, ""), file, URL_VARIABLE) or None


def namespace_from(environment: Mapping[str, str]) -> str:
    """Return what the keys in Redis begin with."""
    return environment.get(NAMESPACE_VARIABLE) or NAMESPACE


def secret_from(value: str, file: str | Path | None, variable: str) -> str:
    """Return the secret of a variable, or what the file holds that `<variable>_FILE` names.

    Raises ConfigError if both are set, or the file cannot be read or is empty.
    """
    value = value.strip()
    if value and file:
        raise ConfigError(
            f"{variable} and {variable}_FILE: both are set, expected one; remove the other"
        )
    return read_secret_file(Path(file), f"{variable}_FILE") if file else value


def read_secret_file(file: Path, variable: str) -> str:
    """Return the secret that a file holds, without the white space around it.

    variable  the one that names the file, for messages

    Raises ConfigError if it cannot be read or is empty: who names a file wants a secret.
    """
    try:
        with file.open("rb") as stream:
            held = stream.read(MAX_SECRET_BYTES).decode().strip()
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


def place_of(url: str) -> str:
    """Return an address without user, password and options.

    Raises ConfigError, which tells no part of the address that may be secret, if a part of it
    is unfit: what a client would pass over in silence, or take for another host.
    """
    parts = _parts_of(url)
    _refuse_misread(parts)
    _refuse_options(parts)
    if parts.scheme == "unix":
        return f"unix://{unquote(parts.path)}"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path}"


def invalid_address(url: str) -> str:
    """Say that a text is no address of Redis, without telling it: it may hold a password."""
    scheme = url.partition("://")[0] if "://" in url else "none"
    return (
        f"the address of Redis cannot be read (its scheme: {scheme!r}); expected "
        "redis://[user:password@]host:port/database, rediss:// for TLS, or "
        f"unix:///path?db=database; correct it, and {ENCODE}"
    )


def _parts_of(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # read only now, and perhaps no number
    except ValueError:
        # without its cause, which quotes what it could not read
        raise ConfigError(invalid_address(url)) from None
    if parts.scheme not in OPTIONS or not url.startswith(f"{parts.scheme}://"):
        raise ConfigError(invalid_address(url))
    return parts


def _refuse_misread(parts: SplitResult) -> None:
    """Refuse what an unencoded `/`, `?` or `#` in a password makes of an address."""
    host = parts.netloc.rpartition("@")[2]
    is_unix = parts.scheme == "unix"
    found = [
        ("no host", not is_unix and not parts.hostname),
        ("a host before the path of a socket", is_unix and host),
        ("no path of a socket", is_unix and not parts.path),
        ("an `@` after the host", "@" in parts.query or (not is_unix and "@" in parts.path)),
        ("a `#`", parts.fragment),
    ]
    told = [what for what, is_so in found if is_so]
    if told:
        raise ConfigError(
            f"the address of Redis holds {' and '.join(told)}; expected "
            "redis://[user:password@]host:port/database, or rediss:// or "
            f"unix://[user:password@]/path?db=database; {ENCODE}"
        )


def _refuse_options(parts: SplitResult) -> None:
    """Refuse options that would change what answers look like, or for how long we wait."""
    if parts.scheme != "unix" and not re.fullmatch(DATABASE, parts.path):
        raise ConfigError(
            "the address of Redis: found a path that is no number of a database, expected "
            "redis://host:port/0; correct what stands after the host"
        )
    allowed = OPTIONS[parts.scheme]
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed:
            raise ConfigError(
                f"the address of Redis: found the option {name!r}, expected with "
                f"{parts.scheme}:// one of {', '.join(allowed)}; remove it"
            )
        expected, pattern = allowed[name]
        if not re.fullmatch(pattern, value):
            raise ConfigError(
                f"the address of Redis: the option {name} has an unfit value, expected "
                f"{expected}; correct it"
            )


def check_namespace(namespace: str, what: str) -> None:
    """Refuse what the keys of a store cannot begin with; `what` lies in the store.

    Raises ConfigError.
    """
    if not re.fullmatch(NAMESPACE_PATTERN, namespace):
        raise ConfigError(
            f"{what} in Redis: found the namespace {namespace!r}, expected 1 to 64 "
            "letters, digits, dots, dashes or underscores; choose another"
        )
