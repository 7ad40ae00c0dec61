"""Redis URLs: read from the environment, validated, and redacted for messages."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from index.errors import ConfigError

URL_VARIABLE = "ESANS_REDIS_URL"
FILE_VARIABLE = "ESANS_REDIS_URL_FILE"
NAMESPACE_VARIABLE = "ESANS_NAMESPACE"
VARIABLES = (URL_VARIABLE, FILE_VARIABLE, NAMESPACE_VARIABLE)
PREFIXES = ("ESANS_REDIS", "ESANS_NAME")  # other variables with these prefixes are misspelled
# by Kubernetes, for a Service named `esans` or `esans-NAME`
INJECTED = re.compile(
    r"ESANS_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
INJECTED_URL = re.compile(r"ESANS_(\w+_)?PORT")
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
OPTIONS = {"redis": COMMON_OPTIONS, "rediss": COMMON_OPTIONS | TLS_OPTIONS, "unix": COMMON_OPTIONS}
DATABASE = rf"/?|/{NUMBER[1]}"
NAMESPACE_PATTERN = r"[A-Za-z0-9_.-]{1,64}"
ENCODE = "percent-encode the password (`/` is %2F, `?` is %3F, `#` is %23, `@` is %40)"


def load_redis_url(environment: Mapping[str, str]) -> str | None:
    """Load the Redis URL from its variable or its secret file; None if neither is set.

    Raises:
        ConfigError: Both are set, the file is unreadable or empty, or a variable is misspelled
            (which would silently select another store).
    """
    misspelled = sorted(
        name
        for name, value in environment.items()
        if name.startswith(PREFIXES) and name not in VARIABLES and not is_injected(name, value)
    )
    if misspelled:
        raise ConfigError(
            f"{', '.join(misspelled)}: unknown variable, expected one of {', '.join(VARIABLES)}; "
            "correct the name"
        )
    file = environment.get(FILE_VARIABLE, "")
    return load_secret(environment.get(URL_VARIABLE, ""), file, URL_VARIABLE) or None


def is_injected(name: str, value: str) -> bool:
    """Return whether Kubernetes sets this variable; not `ESANS_PORT=8000`, set by a person."""
    is_url = INJECTED_URL.fullmatch(name) is not None and not value.isdigit()
    return is_url or INJECTED.fullmatch(name) is not None


def get_namespace(environment: Mapping[str, str]) -> str:
    """Return the prefix of all Redis keys."""
    return environment.get(NAMESPACE_VARIABLE) or NAMESPACE


def load_secret(value: str, file: str | Path | None, variable: str) -> str:
    """Load a secret from a variable, or from the file that `<variable>_FILE` names.

    Raises:
        ConfigError: Both are set, or the file is unreadable or empty.
    """
    value = value.strip()
    if value and file:
        raise ConfigError(
            f"{variable} and {variable}_FILE: both are set, expected one; remove one of them"
        )
    return read_secret_file(Path(file), f"{variable}_FILE") if file else value


def read_secret_file(file: Path, variable: str) -> str:
    """Read a secret file, stripped of surrounding white space.

    Args:
        file: Path of the secret file.
        variable: Variable that names the file, for error messages.

    Raises:
        ConfigError: The file is unreadable or empty.
    """
    try:
        with file.open("rb") as stream:
            secret = stream.read(MAX_SECRET_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{variable}: {file} cannot be read ({type(error).__name__}); expected a text file "
            "with only the secret; mount it, or grant this user read access"
        ) from None  # the cause may quote the content
    if not secret:
        raise ConfigError(
            f"{variable}: {file} is empty, expected the secret; write it into the file, or "
            f"unset {variable}"
        )
    return secret


def redact_url(url: str) -> str:
    """Validate a Redis URL; return it without user, password and options.

    Raises:
        ConfigError: A part is invalid: a client would ignore it or connect to another host.
            The message contains no part of the URL that may be secret.
    """
    parts = _parse_url(url)
    _validate_structure(parts)
    _validate_options(parts)
    if parts.scheme == "unix":
        return f"unix://{unquote(parts.path)}"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path}"


def invalid_url_message(url: str) -> str:
    """Render the error message for an invalid URL, without quoting it: it may hold a password."""
    scheme = url.partition("://")[0] if "://" in url else "none"
    return (
        f"the Redis URL cannot be parsed (scheme {scheme!r}); expected "
        "redis://[user:password@]host:port/database, rediss:// for TLS, or "
        f"unix:///path?db=database; correct it, and {ENCODE}"
    )


def _parse_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed on access; raises if it is not a number
    except ValueError:
        raise ConfigError(invalid_url_message(url)) from None  # the cause quotes the URL
    if parts.scheme not in OPTIONS or not url.startswith(f"{parts.scheme}://"):
        raise ConfigError(invalid_url_message(url))
    return parts


def _validate_structure(parts: SplitResult) -> None:
    """Reject a URL that an unencoded `/`, `?` or `#` in a password would split differently."""
    host = parts.netloc.rpartition("@")[2]
    is_unix = parts.scheme == "unix"
    checks = [
        ("no host", not is_unix and not parts.hostname),
        ("a host before the socket path", is_unix and host),
        ("no socket path", is_unix and not parts.path),
        ("an `@` after the host", "@" in parts.query or (not is_unix and "@" in parts.path)),
        ("a `#`", parts.fragment),
    ]
    faults = [name for name, is_violated in checks if is_violated]
    if faults:
        raise ConfigError(
            f"the Redis URL has {' and '.join(faults)}; expected "
            "redis://[user:password@]host:port/database, or rediss:// or "
            f"unix://[user:password@]/path?db=database; {ENCODE}"
        )


def _validate_options(parts: SplitResult) -> None:
    """Reject options that would change the response encoding or the timeouts."""
    if parts.scheme != "unix" and not re.fullmatch(DATABASE, parts.path):
        raise ConfigError(
            "the Redis URL has a path that is not a database number, expected "
            "redis://host:port/0; correct the path"
        )
    allowed = OPTIONS[parts.scheme]
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed:
            raise ConfigError(
                f"the Redis URL has the unsupported option {name!r}, expected for "
                f"{parts.scheme}:// one of {', '.join(allowed)}; remove it"
            )
        expected, pattern = allowed[name]
        if not re.fullmatch(pattern, value):
            raise ConfigError(
                f"the Redis URL has an invalid value for option {name}, expected {expected}; "
                "correct it"
            )


def validate_namespace(namespace: str, content: str) -> None:
    """Validate a key prefix; `content` names what the store holds, for the error message.

    Raises:
        ConfigError: The namespace is invalid.
    """
    if not re.fullmatch(NAMESPACE_PATTERN, namespace):
        raise ConfigError(
            f"{content} in Redis: found the namespace {namespace!r}, expected 1 to 64 "
            "letters, digits, dots, dashes or underscores; choose another"
        )
