import pytest

from index.errors import ConfigError
from index.storage.address import get_namespace, load_redis_url

URL = "redis://:s3cret@h/0"


@pytest.mark.parametrize("environment", [{}, {"ESANS_REDIS_URL": ""}, {"ESANS_REDIS_URL": " "}])
def test_load_redis_url_without_variables_returns_none(environment):
    assert load_redis_url(environment) is None
    assert load_redis_url({**environment, "ESANS_REDIS_URL_FILE": ""}) is None


def test_load_redis_url_reads_variable_or_file(tmp_path):
    (tmp_path / "url").write_text(f"{URL}\n")
    assert load_redis_url({"ESANS_REDIS_URL": f" {URL}\n"}) == URL
    environment = {"ESANS_REDIS_URL_FILE": str(tmp_path / "url")}
    assert load_redis_url(environment) == URL
    assert load_redis_url({**environment, "ESANS_REDIS_URL": ""}) == URL


def test_load_redis_url_rejects_variable_and_file(tmp_path):
    both = {"ESANS_REDIS_URL": URL, "ESANS_REDIS_URL_FILE": str(tmp_path / "url")}
    with pytest.raises(ConfigError, match="both are set, expected one; remove") as raised:
        load_redis_url(both)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "url is empty, expected the secret; write it into"),
        (b" \n", "url is empty, expected the secret; write it into"),
        (b"\xff", r"url cannot be read \(UnicodeDecodeError\); expected a text file"),
        (None, r"url cannot be read \(FileNotFoundError\); expected a text file"),
    ],
)
def test_load_redis_url_rejects_unreadable_file(tmp_path, content, message):
    if content is not None:
        (tmp_path / "url").write_bytes(content)
    with pytest.raises(ConfigError, match=f"ESANS_REDIS_URL_FILE: .*{message}"):
        load_redis_url({"ESANS_REDIS_URL_FILE": str(tmp_path / "url")})


def test_get_namespace_defaults_to_esans():
    assert get_namespace({}) == get_namespace({"ESANS_NAMESPACE": ""}) == "esans"
    assert get_namespace({"ESANS_NAMESPACE": "shop"}) == "shop"


@pytest.mark.parametrize(
    "name", ["ESANS_REDIS_ULR", "ESANS_REDIS", "ESANS_NAMESPCE", "ESANS_REDIS_HOST"]
)
def test_load_redis_url_rejects_misspelled_variable(name):
    with pytest.raises(
        ConfigError, match=rf"{name}: unknown variable, expected one of ESANS_REDIS_URL, "
    ):
        load_redis_url({name: URL, "ESANS_LOG_LEVEL": "info"})


def test_load_redis_url_ignores_kubernetes_variables():
    injected = {
        "ESANS_REDIS_SERVICE_HOST": "10.0.0.7",
        "ESANS_REDIS_PORT": "tcp://10.0.0.7:6379",
        "ESANS_REDIS_PORT_6379_TCP_ADDR": "10.0.0.7",
        "ESANS_REDIS_PORT_6379_TCP_PORT": "6379",
        "ESANS_REDIS_MASTER_SERVICE_HOST": "10.0.0.8",
        "ESANS_REDIS_MASTER_SERVICE_PORT_TCP_REDIS": "6379",
    }
    assert load_redis_url({**injected, "ESANS_REDIS_URL": URL}) == URL
