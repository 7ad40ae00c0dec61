import re

import yaml

from index.storage.watcher import STOP_S
from service.server import BACKLOG_TIMEOUT_S
from service.settings import Settings
from tests.support.dockerfile import ROOT, environment, exec_form, stages, values
from trainer.__main__ import build_parser

NOT_CONFIGURABLE = {
    "ESANS_BUNDLES",
    "ESANS_DENYLIST_COPY",
    "ESANS_HTTP_HOST",
    "ESANS_HTTP_PORT",
    "ESANS_NAMESPACE",
}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]


def test_compose_has_services_and_monitoring_profile():
    monitoring = {"prometheus", "grafana"}
    assert set(SERVICES) == {"trainer", "service", "redis"} | monitoring
    for name in monitoring:
        assert SERVICES[name]["profiles"] == ["observability"]
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])
        (port,) = SERVICES[name]["ports"]
        assert port.startswith("127.0.0.1:")


def test_mounted_files_exist_and_are_read_only():
    mounts = [
        volume.split(":")
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert len(mounts) == 4
    for source, _, mode in mounts:
        assert (ROOT / source).exists()
        assert mode == "ro"


def test_stop_grace_period_exceeds_service_shutdown():
    variables = SERVICES["service"]["environment"]
    defaults = {name: value.split(":-")[-1].rstrip("}") for name, value in variables.items()}
    duration_s = sum(float(defaults[f"ESANS_SHUTDOWN_{part}_S"]) for part in ("DELAY", "GRACE"))
    period = SERVICES["service"]["stop_grace_period"].split(":-")[1]
    assert float(period.rstrip("s}")) > duration_s + STOP_S + BACKLOG_TIMEOUT_S


def test_compose_defaults_equal_service_except_delay(tmp_path):
    variables = SERVICES["service"]["environment"]
    defaults = {
        name.removeprefix("ESANS_").lower(): value.split(":-")[1].rstrip("}")
        for name, value in variables.items()
        if ":-" in value
    }
    settings, plain = Settings(bundles=tmp_path, **defaults), Settings(bundles=tmp_path)
    assert settings.model_dump() == plain.model_dump() | {"shutdown_delay_s": 5}


def test_compose_passes_every_configurable_setting():
    known = {f"ESANS_{name}".upper() for name in Settings.model_fields}
    passed = set(SERVICES["service"]["environment"])
    assert known - NOT_CONFIGURABLE == passed - NOT_CONFIGURABLE


def test_build_targets_are_dockerfile_stages():
    for name in ("trainer", "service"):
        assert SERVICES[name]["build"]["target"] in stages()


def test_build_args_are_declared_in_dockerfile():
    arguments = SERVICES["trainer"]["build"]["args"]
    declared = {value.split("=")[0] for value in values("trainer-build", "ARG")}
    assert set(arguments) <= declared


def test_trainer_command_is_parsed():
    parsed = build_parser().parse_args(SERVICES["trainer"]["command"])
    assert str(parsed.data) == "/demo"
    assert str(parsed.bundles) == "/bundles"
    assert parsed.skip == "if-any"
    assert SERVICES["trainer"]["restart"] == "no"


def test_trainer_image_contains_demo_data():
    assert any(
        "python -m examples.catalogue /demo" in line for line in values("trainer-build", "RUN")
    )
    assert "--from=trainer-build /demo /demo" in values("trainer", "COPY")


def test_service_waits_for_trainer_to_finish():
    dependency = SERVICES["service"]["depends_on"]["trainer"]
    assert dependency == {"condition": "service_completed_successfully"}


def test_redis_is_shared_but_optional():
    for name in ("trainer", "service"):
        url = SERVICES[name]["environment"]["ESANS_REDIS_URL"]
        assert url == "${ESANS_REDIS_URL-redis://redis:6379/0}"  # may be empty: a folder
        dependency = SERVICES[name]["depends_on"]["redis"]
        assert dependency == {"condition": "service_started", "required": False}


def test_depends_on_has_no_cycle():
    assert "depends_on" not in SERVICES["redis"]
    assert "service" not in SERVICES["trainer"]["depends_on"]


def test_empty_compose_variables_are_valid(tmp_path):
    variables = SERVICES["service"]["environment"]
    empty = [name for name, value in variables.items() if re.fullmatch(r"\$\{\w+-\}", value)]
    assert empty == ["ESANS_REDIS_URL_FILE", "ESANS_ADMIN_TOKEN", "ESANS_ADMIN_TOKEN_FILE"]
    settings = Settings(bundles=tmp_path, **{name[6:].lower(): "" for name in empty})
    assert settings.secret("admin_token") == settings.secret("redis_url") == ""


def test_compose_and_image_variables_are_settings():
    known = {f"ESANS_{name}".upper() for name in Settings.model_fields}
    variables = set(SERVICES["service"]["environment"])
    variables |= {name for name in environment("service") if name.startswith("ESANS_")}
    assert variables <= known


def test_published_port_is_the_listening_port():
    port = SERVICES["service"]["environment"]["ESANS_HTTP_PORT"]
    assert SERVICES["service"]["ports"] == ["${PUBLISHED_PORT:-8000}:" + port]
    assert values("service", "EXPOSE") == [port]
    assert environment("service")["ESANS_HTTP_PORT"] == port


def test_containers_run_unprivileged_with_read_only_bundles():
    for name in ("trainer", "service"):
        assert SERVICES[name]["user"] == "10001:10001" == values(name, "USER")[-1]
        assert SERVICES[name]["read_only"] is True
    assert SERVICES["service"]["volumes"] == ["bundles:/bundles:ro", "state:/state"]
    assert SERVICES["service"]["environment"]["ESANS_DENYLIST_COPY"].startswith("/state/")
    assert SERVICES["trainer"]["volumes"] == ["bundles:/bundles"]
    assert environment("service")["ESANS_BUNDLES"] == "/bundles"


def test_images_data_folders_belong_to_the_user():
    for name in ("trainer", "service"):
        assert any("-o 10001 -g 10001 /bundles /state" in line for line in values(name, "RUN"))


def test_redis_maxmemory_policy_is_noeviction():
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_env_example_lists_every_compose_variable():
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    documented = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.M))
    assert used - {"NAME"} == documented


def test_copied_paths_exist_in_build_context():
    allowed = set((ROOT / ".dockerignore").read_text().split())
    for stage in ("service-build", "trainer-build"):
        for line in values(stage, "COPY"):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in allowed


def test_service_image_contains_no_trainer_or_torch():
    copied = " ".join(values("service-build", "COPY"))
    assert "trainer" not in copied
    assert "torch" not in " ".join(values("service-build", "RUN"))


def test_entrypoints_use_exec_form():
    assert exec_form(values("service", "ENTRYPOINT")[0]) == ["python", "-m", "service"]
    assert exec_form(values("trainer", "ENTRYPOINT")[0]) == ["python", "-m", "trainer"]


def test_images_set_single_thread():
    for name in ("trainer", "service"):
        assert environment(name)["OMP_NUM_THREADS"] == "1"
        assert environment(name)["OPENBLAS_NUM_THREADS"] == "1"


def test_torch_defaults_to_cpu_build():
    assert values("trainer-build", "ARG") == ["TORCH_INDEX=https://download.pytorch.org/whl/cpu"]
