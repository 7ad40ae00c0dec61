"""Settings of the service: typed, immutable, read from `ESANS_*` variables."""

import difflib
import os
from argparse import ArgumentTypeError
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from index.errors import ConfigError
from index.fsio import parse_path
from index.storage.address import is_injected, load_secret

PREFIX = "ESANS_"


class Settings(BaseSettings):
    """Settings of the service, with their ranges and defaults."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    bundles: Path
    """folder of bundles; may still be empty"""
    http_host: str = Field(default="127.0.0.1", min_length=1)
    """address to listen on; 0.0.0.0 for all IPv4 interfaces"""
    http_port: int = Field(default=8000, ge=0, le=65_535)
    """port to listen on; 0 picks a free one"""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """lowest severity that is logged"""
    access_log: bool = True
    """log a line per request: true or false"""
    poll_interval_s: float = Field(default=2.0, ge=0.02, le=3_600)
    """seconds between polls of the bundle, the cluster map and the denylist"""
    body_limit_bytes: int = Field(default=1 << 20, ge=1 << 10, le=1 << 26)
    """maximum size of a request body, in bytes; larger ones get 413"""
    queue_limit: int = Field(default=1_024, ge=1, le=100_000)
    """maximum number of queries in the request queue, each query of a batch request counted; more
    get 503 at once"""
    queue_timeout_ms: int = Field(default=1_000, ge=1, le=600_000)
    """milliseconds that a query may wait in the request queue before it gets 503"""
    request_timeout_s: float = Field(default=10.0, ge=0.1, le=600)
    """seconds within which a client must send the request head (else the connection is closed)
    and then the body (else 408)"""
    min_read_rate_bytes: int = Field(default=1 << 14, ge=0, le=1 << 30)
    """bytes of a response that a client must read per second, measured over 5 s; slower
    connections are closed"""
    connection_unsent_limit_bytes: int = Field(default=1 << 23, ge=1 << 16, le=1 << 40)
    """bytes that a connection may leave unread for 5 s; above, it is closed"""
    unsent_limit_bytes: int = Field(default=1 << 26, ge=1 << 16, le=1 << 40)
    """bytes that all clients together may leave unread; above, the slowest are closed"""
    shutdown_delay_s: float = Field(default=0.0, ge=0, le=600)
    """seconds from the first SIGTERM (/readyz turns 503) to closing the port; set it to the time
    that a load balancer needs to notice"""
    shutdown_grace_s: int = Field(default=10, ge=0, le=600)
    """seconds that running requests have to finish once the port is closed"""
    redis_url: SecretStr = SecretStr("")
    """Redis that holds cluster maps and denylist, redis://[[user]:password@]host:port/0 or
    rediss://; empty: the folder of bundles holds them"""
    redis_url_file: Path | None = None
    """file that holds the Redis URL, instead of ESANS_REDIS_URL"""
    denylist_copy: Path | None = None
    """local file that keeps the last denylist read from Redis across restarts, for a read-only
    folder of bundles"""
    namespace: str = Field(default="esans", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """prefix of the Redis keys; must equal the trainer's"""
    admin_token: SecretStr = SecretStr("")
    """bearer token of the admin endpoints; empty: they are disabled"""
    admin_token_file: Path | None = None
    """file that holds the token, instead of ESANS_ADMIN_TOKEN"""

    @model_validator(mode="before")
    @classmethod
    def reject_unknown_names(cls, values: object) -> object:
        """Reject misspelt variables, which pydantic-settings ignores."""
        errors = find_unknown_names(os.environ)
        if errors:
            raise ValueError("; ".join(errors))
        return values

    @field_validator("bundles", mode="before")
    @classmethod
    def reject_empty_folder(cls, value: object) -> object:
        """Reject an empty path, which would mean the working directory."""
        if value == "":
            raise ValueError("expected a folder")
        return value

    @field_validator("bundles", "denylist_copy", mode="before")
    @classmethod
    def reject_urls(cls, value: object) -> object:
        """Reject a URL, which would be taken for a local folder."""
        try:
            parse_path(str(value))
        except ArgumentTypeError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("redis_url_file", "admin_token_file", "denylist_copy", mode="before")
    @classmethod
    def treat_empty_as_unset(cls, value: object) -> object:
        """Treat an empty variable as unset: compose files pass unset ones as empty."""
        return None if value == "" else value

    @model_validator(mode="after")
    def validate_secrets(self) -> "Settings":
        """Read the secrets once, so that errors show at startup."""
        try:
            self.secret("redis_url")
            self.secret("admin_token")
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def secret(self, name: Literal["redis_url", "admin_token"]) -> str:
        """Return a secret from its setting or its file setting; empty if neither is set.

        Raises:
            ConfigError: both are set, or the file is unreadable or empty.
        """
        value, file = getattr(self, name).get_secret_value(), getattr(self, f"{name}_file")
        return load_secret(value, file, f"{PREFIX}{name.upper()}")


def list_known_names() -> list[str]:
    """Return the variables of all settings."""
    return sorted(f"{PREFIX}{name}".upper() for name in Settings.model_fields)


def find_unknown_names(environment: Mapping[str, str]) -> list[str]:
    """Return an error message for each variable with our prefix that is not a setting."""
    known = list_known_names()
    errors = []
    for name in sorted(environment):
        upper = name.upper()
        is_known = upper in known or is_injected(upper, environment[name].strip())
        if not upper.startswith(PREFIX) or is_known:
            continue
        close = difflib.get_close_matches(upper, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        errors.append(f"{name} is not a setting; {hint}known settings: {', '.join(known)}")
    return errors


def load_settings(overrides: Mapping[str, Any]) -> Settings:
    """Load the settings from the environment; `overrides` take precedence.

    Raises:
        ConfigError: a setting is invalid; lists all errors.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigError("\n".join(_render_error(each) for each in error.errors())) from error


def _render_error(error: ErrorDetails) -> str:
    if not error["loc"]:
        return f"settings: {error['ctx']['error']}"
    name = str(error["loc"][0])
    variable = f"{PREFIX}{name.upper()}"
    if error["type"] == "missing":
        option = " or pass --bundles DIR" if name == "bundles" else ""
        return (
            f"{variable} is not set: {_description_of(Settings.model_fields[name])}; set it{option}"
        )
    return f"{variable}: found {error['input']!r}; {error['msg']}; change it"


def describe_settings() -> str:
    """Return the reference of all settings for --help."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else f"default: {_render_default(field)}"
        variable = f"{PREFIX}{name.upper()}"
        lines.append(
            f"  {variable}\n    {_description_of(field)} ({_render_range(field)}{default})"
        )
    return "\n".join(lines)


def _render_default(field: FieldInfo) -> str:
    """Render a default as it is written in a variable."""
    default = field.default
    if default is None or isinstance(default, SecretStr):
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _description_of(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _render_range(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return f"{', '.join(get_args(field.annotation))}; "
    low = [limit.ge for limit in field.metadata if isinstance(limit, Ge)]
    high = [limit.le for limit in field.metadata if isinstance(limit, Le)]
    return f"{low[0]} to {high[0]}; " if low and high else ""
