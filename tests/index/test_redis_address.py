"""Validation of Redis URLs; no message contains a secret."""

import traceback

import pytest

from index.errors import ConfigError
from index.storage.address import OPTIONS, redact_url
from tests.conftest import ROOT
from tests.support.cluster_maps import redis_maps

SECRET = "s3cr"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("redis://h", "redis://h:6379"),
        ("redis://h/", "redis://h:6379/"),
        ("redis://user:s3cret@h.example:7000/3", "redis://h.example:7000/3"),
        ("redis://:s3%2Fc%3Fr%23e%40t@h/0", "redis://h:6379/0"),
        ("redis://:s3@cret@h/0", "redis://h:6379/0"),
        ("redis://[::1]:7/0", "redis://[::1]:7/0"),
        ("rediss://h?ssl_ca_certs=/a/ca.pem&ssl_cert_reqs=none&db=2", "rediss://h:6379"),
        ("unix:///run/redis.sock?db=3&client_name=shop", "unix:///run/redis.sock"),
        ("unix://user:s3cret@/run/redis%20one.sock", "unix:///run/redis one.sock"),
    ],
)
def test_redact_url_removes_credentials_and_options(url, location):
    assert redact_url(url) == location
    assert redis_maps(url).location == f"{location}, namespace esans"


def error_of(url):
    """Message and traceback of the error for an invalid URL."""
    with pytest.raises(ConfigError) as raised:
        redis_maps(url)
    return str(raised.value), "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:12/{SECRET}@h:6379/0",
        f"redis://:12?{SECRET}@h:6379/0",
        f"redis://:12#{SECRET}@h:6379/0",
        f"redis://user/{SECRET}@h:6379/0",
        f"redis://user:{SECRET}/et@h:6379/0",
        f"redis://user:{SECRET}#et@h:6379/0",
        f"redis://user:12/{SECRET}@h:6379/0",
        f"rediss://user:12?{SECRET}=@h:6379/0",
        f"redis://h/0?db=1&x={SECRET}@g",
        f"redis://[{SECRET}@h:6379/0",
        f"redis://:{SECRET}@/0",
        f"redis://:{SECRET}@h/0#{SECRET}",
        f"unix://:12/{SECRET}@/run/redis.sock",
        f"unix://:{SECRET}#1@/run/redis.sock",
        f"unix://user:{SECRET}@",
    ],
)
def test_unencoded_password_is_rejected_and_not_quoted(url):
    message, trace = error_of(url)
    assert "expected redis://" in message
    assert "percent-encode the password" in message
    assert SECRET not in trace


@pytest.mark.parametrize("scheme", ["redis://h", "rediss://h", "unix:///run/redis.sock"])
@pytest.mark.parametrize(
    "option",
    [
        *("decode_responses", "socket_timeout", "socket_connect_timeout", "timeout", "retry"),
        *("nosuch", "protocol", "password", "health_check_interval", "host", "ssl_ca_data"),
    ],
)
def test_unsupported_option_is_rejected_without_its_value(scheme, option):
    message, _ = error_of(f"{scheme}?db=1&{option}={SECRET}")
    assert f"unsupported option '{option}', expected for {scheme.split(':')[0]}://" in message
    assert SECRET not in message


def test_tls_options_require_tls_scheme():
    assert "unsupported option 'ssl_ca_certs'" in error_of("redis://h?ssl_ca_certs=ca.pem")[0]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("db", value) for value in ("", "-1", "one", "1.0", "123456")),
        *(("ssl_cert_reqs", value) for value in ("", "maybe")),
        *(("ssl_check_hostname", value) for value in ("", "maybe")),
        *(("ssl_ca_certs", ""), ("client_name", ""), ("client_name", "a%20b")),
    ],
)
def test_invalid_option_value_is_rejected(option, value):
    message, _ = error_of(f"rediss://h?{option}={value}")
    assert f"invalid value for option {option}, expected " in message


@pytest.mark.parametrize("path", ["/abc", "/1/2", "/1a", "/-1", "//1"])
def test_path_that_is_not_a_database_number_is_rejected(path):
    assert "not a database number, expected redis://host:port/0" in error_of(f"redis://h{path}")[0]


@pytest.mark.parametrize("scheme", OPTIONS)
def test_operations_page_lists_every_option(scheme):
    page = (ROOT / "docs" / "operations.md").read_text()
    assert [option for option in OPTIONS[scheme] if f"`{option}`" not in page] == []
