import pytest

from index.errors import ConfigError
from index.storage.address import address_from, namespace_from

URL = "redis://:s3cret@h/0"


@pytest.mark.parametrize("environment", [{}, {"ESANS_REDIS_URL": ""}, {"ESANS_REDIS_URL": " "}])
def test_without_an_address_there_is_none(environment):
    assert address_from(environment) is None
    assert address_from({**environment, "ESANS_REDIS_URL_FILE": ""}) is None


def test_an_address_stands_in_the_environment_or_in_a_file_it_names(tmp_path):
    (tmp_path / "url").write_text(f"{URL}\n")
    assert address_from({"ESANS_REDIS_URL": f" {URL}\n"}) == URL
    named = {"ESANS_REDIS_URL_FILE": str(tmp_path / "url")}
    assert address_from(named) == URL
    assert address_from({**named, "ESANS_REDIS_URL": ""}) == URL


def test_both_at_once_are_refused(tmp_path):
    both = {"ESANS_REDIS_URL": URL, "ESANS_REDIS_URL_FILE": str(tmp_path / "url")}
    with pytest.raises(ConfigError, match="both are set, expected one; remove") as refused:
        address_from(both)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (b"", "url is empty, expected the secret; write it into"),
        (b" \n", "url is empty, expected the secret; write it into"),
        (b"\xff", r"url cannot be read \(UnicodeDecodeError\); expected a text file"),
        (None, r"url cannot be read \(FileNotFoundError\); expected a text file"),
    ],
)
def test_a_file_that_holds_no_address_is_told(tmp_path, held, told):
    if held is not None:
        (tmp_path / "url").write_bytes(held)
    with pytest.raises(ConfigError, match=f"ESANS_REDIS_URL_FILE: .*{told}"):
        address_from({"ESANS_REDIS_URL_FILE": str(tmp_path / "url")})


def test_the_namespace_is_that_of_the_environment_or_esans():
    assert namespace_from({}) == namespace_from({"ESANS_NAMESPACE": ""}) == "esans"
    assert namespace_from({"ESANS_NAMESPACE": "shop"}) == "shop"


@pytest.mark.parametrize("name", ["ESANS_REDIS_ULR", "ESANS_REDIS", "ESANS_NAMESPCE"])
def test_a_misspelt_variable_is_no_silent_other_store(name):
    with pytest.raises(ConfigError, match=rf"{name}: not known, expected ESANS_REDIS_URL, "):
        address_from({name: URL, "ESANS_LOG_LEVEL": "info"})


def test_what_a_cluster_injects_for_a_service_called_esans_redis_is_not_misspelt():
    injected = {
        "ESANS_REDIS_SERVICE_HOST": "10.0.0.7",
        "ESANS_REDIS_PORT": "tcp://10.0.0.7:6379",
        "ESANS_REDIS_PORT_6379_TCP_ADDR": "10.0.0.7",
    }
    assert address_from({**injected, "ESANS_REDIS_URL": URL}) == URL
