import pytest

from index.errors import ConfigError
from service.settings import Settings, describe_settings, load_settings, unknown_names


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
        ("http_port", "-1", "ESANS_HTTP_PORT: found '-1'"),
        ("poll_s", "0", "ESANS_POLL_S: found '0'; .*0.02"),
        ("poll_s", "nan", "ESANS_POLL_S: found 'nan'"),
        ("log_level", "loud", "ESANS_LOG_LEVEL: found 'loud'; .*'debug'"),
        ("body_limit_bytes", "1", "ESANS_BODY_LIMIT_BYTES: found '1'"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(tmp_path, name, value, told):
    with pytest.raises(ConfigError, match=told):
        load_settings({"bundles": tmp_path, name: value})


def test_all_bad_values_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)ESANS_HTTP_PORT.*ESANS_POLL_S"):
        load_settings({"bundles": tmp_path, "http_port": "x", "poll_s": "y"})


def test_a_misspelt_variable_is_told_with_the_nearest_and_all_known_ones():
    (complaint,) = unknown_names({"ESANS_HTTP_PROT": "1"})
    assert "ESANS_HTTP_PROT is no setting; did you mean ESANS_HTTP_PORT?" in complaint
    assert "known are ESANS_BODY_LIMIT_BYTES, ESANS_BUNDLES" in complaint


def test_a_variable_like_no_other_is_told_without_a_guess():
    (complaint,) = unknown_names({"ESANS_ZZZZZZ": "1"})
    assert "did you mean" not in complaint


@pytest.mark.parametrize(
    "name",
    [
        *("ESANS_SERVICE_HOST", "ESANS_SERVICE_PORT_HTTP"),
        *("ESANS_PORT", "ESANS_PORT_8000_TCP_ADDR"),
        *("ESANS_BUNDLES", "esans_bundles", "PATH"),
    ],
)
def test_what_a_cluster_injects_or_others_own_is_no_complaint(name):
    assert unknown_names({name: "anything"}) == []


def test_every_setting_explains_itself():
    assert all(field.description for field in Settings.model_fields.values())
    assert "ESANS_POLL_S" in describe_settings()
    assert "(0.02 to 3600; default: 2.0)" in describe_settings()
