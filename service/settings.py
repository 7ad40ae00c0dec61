"""The settings: `ESANS_*` in the environment, typed, frozen and closed."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from index.errors import ConfigError
from index.storage.address import secret_from

PREFIX = "ESANS_"
INJECTED = re.compile(r"ESANS_(SERVICE_|PORT(_|$))")  # by a cluster, for a service called esans


class Settings(BaseSettings):
    """Everything that an operator can choose."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    bundles: Path = Field(description="the folder of bundles; it may still be empty")
    http_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="the address to listen on; 0.0.0.0 for every network of this machine",
    )
    http_port: int = Field(
        default=8000, ge=0, le=65_535, description="the port; 0 takes a free one"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least urgent line that is logged"
    )
    access_log: bool = Field(
        default=True, description="whether each request is a line in the log: true or false"
    )
    poll_interval_s: float = Field(
        default=2.0,
        ge=0.02,
        le=3_600,
        description="seconds between two looks at bundle, cluster map and denylist",
    )
    body_limit_bytes: int = Field(
        default=1 << 20,
        ge=1 << 10,
        le=1 << 26,
        description="bytes of the largest request body that is read",
    )
    queue_limit: int = Field(
        default=1_024,
        ge=1,
        le=100_000,
        description="questions that may wait for their turn, those of a batch each for itself; "
        "more are refused at once",
    )
    queue_timeout_ms: int = Field(
        default=1_000,
        ge=1,
        le=600_000,
        description="milliseconds that a question may wait for its turn; then it is refused",
    )
    request_timeout_s: float = Field(
        default=10.0,
        ge=0.1,
        le=600,
        description="seconds in which a request must have come: its head (else the connection "
        "is closed), then its body (else 408); and in which some of an answer must be read",
    )
    shutdown_delay_s: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="seconds from the first SIGTERM (/readyz says 503) to closing the port: "
        "as long as a balancer needs to notice",
    )
    shutdown_grace_s: int = Field(
        default=10,
        ge=0,
        le=600,
        description="seconds that requests may take to end once the port is closed",
    )
    redis_url: SecretStr = Field(
        default=SecretStr(""),
        description="where cluster maps and denylist are followed, "
        "redis://[[user]:password@]host:port/0 or rediss://; empty: among the bundles",
    )
    redis_url_file: Path | None = Field(
        default=None, description="a file that holds the URL, instead of ESANS_REDIS_URL"
    )
    denylist_copy: Path | None = Field(
        default=None,
        description="a file of this service's own that keeps the last denylist of Redis "
        "across restarts, where the folder of bundles may not be written",
    )
    namespace: str = Field(
        default="esans",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="what the keys in Redis begin with: as the trainer's",
    )
    admin_token: SecretStr = Field(
        default=SecretStr(""),
        description="the bearer token of the admin calls; empty: there are none",
    )
    admin_token_file: Path | None = Field(
        default=None, description="a file that holds the token, instead of ESANS_ADMIN_TOKEN"
    )

    @model_validator(mode="before")
    @classmethod
    def refuse_unknown_names(cls, values: object) -> object:
        """Catch a misspelt variable, which would otherwise be passed over in silence."""
        complaints = unknown_names(os.environ)
        if complaints:
            raise ValueError("; ".join(complaints))
        return values

    @field_validator("bundles", mode="before")
    @classmethod
    def refuse_no_folder(cls, value: object) -> object:
        """Refuse what a path would take for the folder that the process was begun in."""
        if value == "":
            raise ValueError("expected a folder")
        return value

    @field_validator("redis_url_file", "admin_token_file", "denylist_copy", mode="before")
    @classmethod
    def take_empty_for_unset(cls, value: object) -> object:
        """Compose files set a variable to nothing where the operator set none."""
        return None if value == "" else value

    @model_validator(mode="after")
    def refuse_unfit_secrets(self) -> "Settings":
        """See at the start, not at the first use, that secrets can be read."""
        try:
            self.secret("redis_url")
            self.secret("admin_token")
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def secret(self, name: Literal["redis_url", "admin_token"]) -> str:
        """Return a secret from its setting or from the file beside it; empty: neither is set.

        Raises ConfigError if both are set, or the file cannot be read or is empty.
        """
        value, file = getattr(self, name).get_secret_value(), getattr(self, f"{name}_file")
        return secret_from(value, file, f"{PREFIX}{name.upper()}")


def known_names() -> list[str]:
    """Return the variables that are settings."""
    return sorted(f"{PREFIX}{name}".upper() for name in Settings.model_fields)


def unknown_names(environment: Mapping[str, str]) -> list[str]:
    """Return a complaint for each variable that looks like a setting and is none."""
    known = known_names()
    complaints = []
    for name in sorted(environment):
        spoken = name.upper()
        if not spoken.startswith(PREFIX) or spoken in known or INJECTED.match(spoken):
            continue
        close = difflib.get_close_matches(spoken, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        complaints.append(f"{name} is no setting; {hint}known are {', '.join(known)}")
    return complaints


def load_settings(overrides: Mapping[str, Any]) -> Settings:
    """Read the settings; what is in `overrides` comes before the environment.

    Raises ConfigError, listing every fault.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigError("\n".join(_told(one) for one in error.errors())) from error


def _told(fault: ErrorDetails) -> str:
    if not fault["loc"]:
        return f"settings: {fault['ctx']['error']}"
    name = str(fault["loc"][0])
    variable = f"{PREFIX}{name.upper()}"
    if fault["type"] == "missing":
        option = " or give --bundles DIR" if name == "bundles" else ""
        return f"{variable} is not set: {Settings.model_fields[name].description}; set it{option}"
    return f"{variable}: found {fault['input']!r}; {fault['msg']}; change it"


def describe_settings() -> str:
    """Return a line per setting, for --help."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else f"default: {_told_default(field)}"
        variable = f"{PREFIX}{name.upper()}"
        lines.append(f"  {variable}\n    {field.description} ({_range_of(field)}{default})")
    return "\n".join(lines)


def _told_default(field: FieldInfo) -> str:
    """Tell a default as a variable spells it."""
    default = field.default
    if default is None or isinstance(default, SecretStr):
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _range_of(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return f"{', '.join(get_args(field.annotation))}; "
    low = [one.ge for one in field.metadata if isinstance(one, Ge)]
    high = [one.le for one in field.metadata if isinstance(one, Le)]
    return f"{low[0]} to {high[0]}; " if low and high else ""
