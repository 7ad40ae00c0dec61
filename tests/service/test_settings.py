import pytest

from index.errors import ConfigError
from service.settings import Settings, describe_settings, find_unknown_names, load_settings


def test_unset_settings_have_defaults(tmp_path):
    settings = load_settings({"bundles": str(tmp_path)})
    assert settings == Settings(bundles=tmp_path)
    assert (settings.http_port, settings.body_limit_bytes) == (8000, 1_048_576)


def test_settings_are_immutable(tmp_path):
    with pytest.raises(ValueError, match="frozen"):
        Settings(bundles=tmp_path).http_port = 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("http_port", "65536", "ESANS_HTTP_PORT: found '65536'; .*65535"),
        ("bundles", "", "ESANS_BUNDLES: found ''; .*expected a folder"),
        ("http_port", "-1", "ESANS_HTTP_PORT: found '-1'"),
        ("poll_interval_s", "0", "ESANS_POLL_INTERVAL_S: found '0'; .*0.02"),
        ("poll_interval_s", "nan", "ESANS_POLL_INTERVAL_S: found 'nan'"),
        ("log_level", "loud", "ESANS_LOG_LEVEL: found 'loud'; .*'debug'"),
        ("body_limit_bytes", "1", "ESANS_BODY_LIMIT_BYTES: found '1'"),
        ("namespace", "a:b", "ESANS_NAMESPACE: found 'a:b'"),
        ("redis_url_file", "/nowhere/url", "ESANS_REDIS_URL_FILE: /nowhere/url cannot be read"),
        ("admin_token_file", "/nowhere", "ESANS_ADMIN_TOKEN_FILE: /nowhere cannot be read"),
    ],
)
def test_invalid_value_is_reported_by_variable(tmp_path, name, value, message):
    with pytest.raises(ConfigError, match=message):
        load_settings({"bundles": tmp_path} | {name: value})


def test_all_invalid_values_are_reported_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)ESANS_HTTP_PORT.*ESANS_POLL_INTERVAL_S"):
        load_settings({"bundles": tmp_path, "http_port": "x", "poll_interval_s": "y"})


def test_misspelt_variable_gets_suggestion_and_known_names():
    (message,) = find_unknown_names({"ESANS_HTTP_PROT": "1"})
    assert "ESANS_HTTP_PROT is not a setting; did you mean ESANS_HTTP_PORT?" in message
    assert "known settings: ESANS_ACCESS_LOG, ESANS_ADMIN_TOKEN, ESANS_ADMIN_TOKEN_FILE" in message


def test_unknown_variable_without_match_gets_no_suggestion():
    (message,) = find_unknown_names({"ESANS_ZZZZZZ": "1"})
    assert "did you mean" not in message


@pytest.mark.parametrize(
    "name",
    [
        *("ESANS_SERVICE_HOST", "ESANS_SERVICE_PORT_HTTP"),
        *("ESANS_PORT", "ESANS_PORT_8000_TCP_ADDR"),
        *("ESANS_REDIS_SERVICE_HOST", "ESANS_REDIS_PORT", "ESANS_REDIS_PORT_6379_TCP_PROTO"),
        *("ESANS_API_V2_SERVICE_PORT_HTTP", "ESANS_API_V2_PORT"),
        *("ESANS_BUNDLES", "esans_bundles", "PATH"),
        *("ESANS_REDIS_URL", "ESANS_REDIS_URL_FILE", "ESANS_NAMESPACE"),
    ],
)
def test_kubernetes_and_foreign_variables_are_ignored(name):
    assert find_unknown_names({name: "anything"}) == []


@pytest.mark.parametrize("name", ["ESANS_HTP_PORT", "ESANS_SERVICE_HOSTS", "ESANS_PORT_8000"])
def test_names_like_those_of_kubernetes_are_not_ignored(name):
    assert len(find_unknown_names({name: "8000"})) == 1


def test_port_number_gets_suggestion_unlike_injected_url():
    (message,) = find_unknown_names({"ESANS_PORT": "8000"})
    assert "ESANS_PORT is not a setting; did you mean ESANS_HTTP_PORT?" in message
    assert find_unknown_names({"ESANS_PORT": "tcp://10.0.0.1:80", "ESANS_SERVICE_PORT": "80"}) == []


def test_secrets_are_read_from_files(tmp_path):
    (tmp_path / "url").write_text("redis://:pass@host:1/2\n")
    (tmp_path / "token").write_text(" token\n")
    files = {"redis_url_file": tmp_path / "url", "admin_token_file": tmp_path / "token"}
    settings = Settings(bundles=tmp_path, **files)
    assert settings.secret("redis_url") == "redis://:pass@host:1/2"
    assert settings.secret("admin_token") == "token"


def test_empty_file_variable_is_unset(tmp_path):
    settings = Settings(bundles=tmp_path, redis_url_file="", admin_token_file="")
    assert (settings.secret("redis_url"), settings.secret("admin_token")) == ("", "")


def test_secret_set_twice_is_rejected(tmp_path):
    (tmp_path / "token").write_text("one")
    both = {"admin_token": "two", "admin_token_file": tmp_path / "token"}
    with pytest.raises(ConfigError, match="ESANS_ADMIN_TOKEN_FILE: "):
        load_settings({"bundles": tmp_path, **both})


def test_secrets_are_never_shown(tmp_path):
    settings = Settings(bundles=tmp_path, redis_url="redis://:hush@h/0", admin_token="hush")
    shown = f"{settings} {settings!r} {settings.model_dump_json()} {describe_settings()}"
    assert "hush" not in shown


def test_every_setting_has_description_and_range():
    assert all(field.description for field in Settings.model_fields.values())
    assert "ESANS_POLL_INTERVAL_S" in describe_settings()
    assert "(0.02 to 3600; default: 2.0)" in describe_settings()


def test_defaults_are_rendered_as_variable_values():
    text = describe_settings()
    assert "true or false (default: true)" in text
    assert "(0 to 600; default: 0.0)" in text
    assert "they are disabled (default: none)" in text


@pytest.mark.parametrize("name", ["redis_url", "admin_token"])
def test_empty_secret_file_is_rejected(tmp_path, name):
    empty = tmp_path / "secret"
    empty.write_text(" \n")
    with pytest.raises(ConfigError, match=rf"{name.upper()}_FILE: .*empty"):
        load_settings({"bundles": tmp_path, f"{name}_file": empty})


@pytest.mark.parametrize("name", ["bundles", "denylist_copy"])
def test_url_for_folder_is_rejected(tmp_path, name):
    with pytest.raises(ConfigError, match=rf"ESANS_{name.upper()}: .*found the URL 's3://a'"):
        load_settings({"bundles": tmp_path} | {name: "s3://a"})
