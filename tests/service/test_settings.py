import pytest

from index.errors import ConfigError
from service.settings import (
    Settings,
    describe_settings,
    load_settings,
    unknown_names,
)


def test_what_is_not_chosen_has_a_default(tmp_path):
    settings = load_settings({"bundles": str(tmp_path)})
    assert settings == Settings(bundles=tmp_path)
    assert (settings.http_port, settings.body_limit_bytes) == (8000, 1_048_576)


def test_settings_do_not_change(tmp_path):
    with pytest.raises(ValueError, match="frozen"):
        Settings(bundles=tmp_path).http_port = 1


@pytest.mark.parametrize(
    ("name", "value", "told"),
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
def test_a_value_out_of_range_is_refused_by_name(tmp_path, name, value, told):
    with pytest.raises(ConfigError, match=told):
        load_settings({"bundles": tmp_path} | {name: value})


def test_all_bad_values_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)ESANS_HTTP_PORT.*ESANS_POLL_INTERVAL_S"):
        load_settings({"bundles": tmp_path, "http_port": "x", "poll_interval_s": "y"})


def test_a_misspelt_variable_is_told_with_the_nearest_and_all_known_ones():
    (complaint,) = unknown_names({"ESANS_HTTP_PROT": "1"})
    assert "ESANS_HTTP_PROT is no setting; did you mean ESANS_HTTP_PORT?" in complaint
    assert "known are ESANS_ACCESS_LOG, ESANS_ADMIN_TOKEN, ESANS_ADMIN_TOKEN_FILE" in complaint


def test_a_variable_like_no_other_is_told_without_a_guess():
    (complaint,) = unknown_names({"ESANS_ZZZZZZ": "1"})
    assert "did you mean" not in complaint


@pytest.mark.parametrize(
    "name",
    [
        *("ESANS_SERVICE_HOST", "ESANS_SERVICE_PORT_HTTP"),
        *("ESANS_PORT", "ESANS_PORT_8000_TCP_ADDR"),
        *("ESANS_BUNDLES", "esans_bundles", "PATH"),
        *("ESANS_REDIS_URL", "ESANS_REDIS_URL_FILE", "ESANS_NAMESPACE"),
    ],
)
def test_what_a_cluster_injects_or_others_own_is_no_complaint(name):
    assert unknown_names({name: "anything"}) == []


def test_secrets_are_read_from_files_too(tmp_path):
    (tmp_path / "url").write_text("redis://:pass@host:1/2\n")
    (tmp_path / "token").write_text(" token\n")
    files = {"redis_url_file": tmp_path / "url", "admin_token_file": tmp_path / "token"}
    found = Settings(bundles=tmp_path, **files)
    assert found.secret("redis_url") == "redis://:pass@host:1/2"
    assert found.secret("admin_token") == "token"


def test_a_file_variable_set_to_nothing_is_not_set(tmp_path):
    settings = Settings(bundles=tmp_path, redis_url_file="", admin_token_file="")
    assert (settings.secret("redis_url"), settings.secret("admin_token")) == ("", "")


def test_a_secret_given_twice_is_refused(tmp_path):
    (tmp_path / "token").write_text("one")
    chosen = {"admin_token": "two", "admin_token_file": tmp_path / "token"}
    with pytest.raises(ConfigError, match="ESANS_ADMIN_TOKEN_FILE: both are set"):
        load_settings({"bundles": tmp_path, **chosen})


def test_a_secret_is_shown_nowhere(tmp_path):
    settings = Settings(bundles=tmp_path, redis_url="redis://:hush@h/0", admin_token="hush")
    told = f"{settings} {settings!r} {settings.model_dump_json()} {describe_settings()}"
    assert "hush" not in told


def test_every_setting_explains_itself():
    assert all(field.description for field in Settings.model_fields.values())
    assert "ESANS_POLL_INTERVAL_S" in describe_settings()
    assert "(0.02 to 3600; default: 2.0)" in describe_settings()


def test_defaults_are_told_as_a_variable_spells_them():
    told = describe_settings()
    assert "true or false (default: true)" in told
    assert "(0 to 600; default: 0.0)" in told
    assert "there are none (default: none)" in told


@pytest.mark.parametrize("name", ["redis_url", "admin_token"])
def test_a_file_named_for_a_secret_must_hold_one(tmp_path, name):
    empty = tmp_path / "secret"
    empty.write_text(" \n")
    with pytest.raises(ConfigError, match=rf"{name.upper()}_FILE: .*secret is empty"):
        load_settings({"bundles": tmp_path, f"{name}_file": empty})
