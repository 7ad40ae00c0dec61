"""Which addresses of a Redis are taken, and that no message tells a secret."""

import traceback

import pytest

from index.errors import ConfigError
from index.storage.address import OPTIONS, place_of
from tests.conftest import ROOT
from tests.support.cluster_maps import redis_maps

SECRET = "s3cr"


@pytest.mark.parametrize(
    ("url", "place"),
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
def test_an_address_is_told_without_user_password_and_options(url, place):
    assert place_of(url) == place
    assert redis_maps(url).place == f"{place}, namespace esans"


def told_of(url):
    """What is told of an address that is refused, with all causes."""
    with pytest.raises(ConfigError) as refused:
        redis_maps(url)
    return str(refused.value), "".join(traceback.format_exception(refused.value))


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
def test_a_password_that_is_not_encoded_is_refused_and_told_nowhere(url):
    told, traced = told_of(url)
    assert "expected redis://" in told
    assert "percent-encode the password" in told
    assert SECRET not in traced


@pytest.mark.parametrize("scheme", ["redis://h", "rediss://h", "unix:///run/redis.sock"])
@pytest.mark.parametrize(
    "option",
    [
        *("decode_responses", "socket_timeout", "socket_connect_timeout", "timeout", "retry"),
        *("nosuch", "protocol", "password", "health_check_interval", "host", "ssl_ca_data"),
    ],
)
def test_an_option_that_is_not_allowed_is_named_without_its_value(scheme, option):
    told, _ = told_of(f"{scheme}?db=1&{option}={SECRET}")
    assert f"found the option '{option}', expected with {scheme.split(':')[0]}:// one of" in told
    assert SECRET not in told


def test_options_of_tls_need_an_address_of_tls():
    assert "found the option 'ssl_ca_certs'" in told_of("redis://h?ssl_ca_certs=ca.pem")[0]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("db", value) for value in ("", "-1", "one", "1.0", "123456")),
        *(("ssl_cert_reqs", value) for value in ("", "maybe")),
        *(("ssl_check_hostname", value) for value in ("", "maybe")),
        *(("ssl_ca_certs", ""), ("client_name", ""), ("client_name", "a%20b")),
    ],
)
def test_an_unfit_value_of_an_option_is_refused(option, value):
    told, _ = told_of(f"rediss://h?{option}={value}")
    assert f"the option {option} has an unfit value, expected " in told


@pytest.mark.parametrize("path", ["/abc", "/1/2", "/1a", "/-1", "//1"])
def test_a_path_that_is_no_number_of_a_database_is_refused(path):
    assert "no number of a database, expected redis://host:port/0" in told_of(f"redis://h{path}")[0]


@pytest.mark.parametrize("scheme", OPTIONS)
def test_the_operations_page_names_every_option(scheme):
    page = (ROOT / "docs" / "operations.md").read_text()
    assert [option for option in OPTIONS[scheme] if f"`{option}`" not in page] == []
