"""The address of a Redis, told to people: without user, password and options."""

from urllib.parse import unquote, urlsplit

from index.errors import ConfigError


def place_of(url: str) -> str:
    """Return an address without user, password and options."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        port = f":{parts.port or 6379}" if parts.scheme != "unix" else ""
    except ValueError as error:
        raise ConfigError(no_address(url)) from error
    return f"{parts.scheme}://{host}{port}{unquote(parts.path)}"


def no_address(url: str) -> str:
    """Say that a text is no address of Redis, without telling it: it may hold a password."""
    scheme = url.partition("://")[0] if "://" in url else "none"
    return (
        f"the address of Redis cannot be read (its scheme: {scheme!r}); expected "
        "redis://[user:password@]host:port/database, rediss:// for TLS, or "
        "unix:///path?db=database; correct it"
    )
