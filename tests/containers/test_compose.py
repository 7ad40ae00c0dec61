import re

import yaml

from index.storage.watcher import STOP_S
from service.server import EMPTYING_S
from service.settings import Settings
from tests.support.dockerfile import ROOT, environment, exec_form, stages, values
from trainer.__main__ import build_parser

NOT_CHOSEN = {
    "ESANS_BUNDLES",
    "ESANS_DENYLIST_COPY",
    "ESANS_HTTP_HOST",
    "ESANS_HTTP_PORT",
    "ESANS_NAMESPACE",
}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]


def test_compose_has_trainer_service_and_redis_and_whoever_wants_it_sees_them_work():
    watching = {"prometheus", "grafana"}
    assert set(SERVICES) == {"trainer", "service", "redis"} | watching
    for name in watching:
        assert SERVICES[name]["profiles"] == ["observability"]
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])
        (port,) = SERVICES[name]["ports"]
        assert port.startswith("127.0.0.1:")


def test_what_is_mounted_from_here_is_here_and_only_read():
    places = [
        volume.split(":")
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert len(places) == 4
    for place, _, mode in places:
        assert (ROOT / place).exists()
        assert mode == "ro"


def test_docker_waits_longer_for_the_end_than_the_service_may_take():
    given = SERVICES["service"]["environment"]
    default = {name: value.split(":-")[-1].rstrip("}") for name, value in given.items()}
    takes = float(default["ESANS_SHUTDOWN_DELAY_S"]) + float(default["ESANS_SHUTDOWN_GRACE_S"])
    period = SERVICES["service"]["stop_grace_period"].split(":-")[1]
    assert float(period.rstrip("s}")) > takes + STOP_S + EMPTYING_S


def test_compose_sets_what_the_service_does_by_default_but_for_the_delay(tmp_path):
    given = SERVICES["service"]["environment"]
    chosen = {
        name.removeprefix("ESANS_").lower(): value.split(":-")[1].rstrip("}")
        for name, value in given.items()
        if ":-" in value
    }
    settings, plain = Settings(bundles=tmp_path, **chosen), Settings(bundles=tmp_path)
    assert settings.model_dump() == plain.model_dump() | {"shutdown_delay_s": 5}


def test_every_setting_but_those_of_the_image_can_be_chosen():
    known = {f"ESANS_{name}".upper() for name in Settings.model_fields}
    of_files = {name for name in known if name.endswith("_FILE")}
    assert known - of_files - NOT_CHOSEN == set(SERVICES["service"]["environment"]) - NOT_CHOSEN


def test_every_build_target_is_a_stage_of_the_dockerfile():
    for name in ("trainer", "service"):
        assert SERVICES[name]["build"]["target"] in stages()


def test_every_build_argument_is_one_that_the_dockerfile_takes():
    arguments = SERVICES["trainer"]["build"]["args"]
    taken = {value.split("=")[0] for value in values("trainer-build", "ARG")}
    assert set(arguments) <= taken


def test_the_trainer_command_is_one_that_the_trainer_understands():
    parsed = build_parser().parse_args(SERVICES["trainer"]["command"])
    assert str(parsed.data) == "/demo"
    assert str(parsed.bundles) == "/bundles"
    assert parsed.skip == "if-any"
    assert SERVICES["trainer"]["restart"] == "no"


def test_the_demo_that_the_trainer_reads_is_made_in_its_image():
    assert any(
        "python -m examples.catalogue /demo" in line for line in values("trainer-build", "RUN")
    )
    assert "--from=trainer-build /demo /demo" in values("trainer", "COPY")


def test_the_service_waits_until_the_trainer_has_published():
    waits = SERVICES["service"]["depends_on"]["trainer"]
    assert waits == {"condition": "service_completed_successfully"}


def test_trainer_and_service_meet_in_redis_but_need_none():
    for name in ("trainer", "service"):
        url = SERVICES[name]["environment"]["ESANS_REDIS_URL"]
        assert url == "${ESANS_REDIS_URL-redis://redis:6379/0}"  # set to nothing: a folder
        wait = SERVICES[name]["depends_on"]["redis"]
        assert wait == {"condition": "service_started", "required": False}


def test_nothing_that_compose_starts_waits_for_itself():
    assert "depends_on" not in SERVICES["redis"]
    assert "service" not in SERVICES["trainer"]["depends_on"]


def test_the_variables_that_compose_leaves_empty_are_no_fault(tmp_path):
    given = SERVICES["service"]["environment"]
    empty = [name for name, value in given.items() if re.fullmatch(r"\$\{\w+-\}", value)]
    assert empty == ["ESANS_ADMIN_TOKEN"]
    assert Settings(bundles=tmp_path, admin_token="").secret("admin_token") == ""


def test_every_variable_that_compose_and_image_set_is_a_setting_of_the_service():
    known = {f"ESANS_{name}".upper() for name in Settings.model_fields}
    given = set(SERVICES["service"]["environment"])
    given |= {name for name in environment("service") if name.startswith("ESANS_")}
    assert given <= known


def test_the_published_port_is_the_one_that_the_service_listens_on():
    port = SERVICES["service"]["environment"]["ESANS_HTTP_PORT"]
    assert SERVICES["service"]["ports"] == ["${PUBLISHED_PORT:-8000}:" + port]
    assert values("service", "EXPOSE") == [port]
    assert environment("service")["ESANS_HTTP_PORT"] == port


def test_nobody_runs_as_root_and_the_service_only_reads_the_bundles():
    for name in ("trainer", "service"):
        assert SERVICES[name]["user"] == "10001:10001" == values(name, "USER")[-1]
        assert SERVICES[name]["read_only"] is True
    assert SERVICES["service"]["volumes"] == ["bundles:/bundles:ro", "state:/state"]
    assert SERVICES["service"]["environment"]["ESANS_DENYLIST_COPY"].startswith("/state/")
    assert SERVICES["trainer"]["volumes"] == ["bundles:/bundles"]
    assert environment("service")["ESANS_BUNDLES"] == "/bundles"


def test_the_folders_belong_to_the_user_in_both_images():
    for name in ("trainer", "service"):
        assert any("-o 10001 -g 10001 /bundles /state" in line for line in values(name, "RUN"))


def test_redis_refuses_writes_rather_than_dropping_parts_of_a_live_map():
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_every_variable_of_compose_is_explained_in_the_example():
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    explained = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.M))
    assert used - {"NAME"} == explained


def test_every_copied_path_exists_and_is_in_the_build_context():
    allowed = set((ROOT / ".dockerignore").read_text().split())
    for stage in ("service-build", "trainer-build"):
        for line in values(stage, "COPY"):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in allowed


def test_the_service_image_takes_nothing_of_the_trainer():
    copied = " ".join(values("service-build", "COPY"))
    assert "trainer" not in copied
    assert "torch" not in " ".join(values("service-build", "RUN"))


def test_entrypoints_are_in_exec_form_so_that_signals_arrive():
    assert exec_form(values("service", "ENTRYPOINT")[0]) == ["python", "-m", "service"]
    assert exec_form(values("trainer", "ENTRYPOINT")[0]) == ["python", "-m", "trainer"]


def test_one_thread_is_set_before_the_process_starts():
    for name in ("trainer", "service"):
        assert environment(name)["OMP_NUM_THREADS"] == "1"
        assert environment(name)["OPENBLAS_NUM_THREADS"] == "1"


def test_torch_is_the_cpu_build_by_default():
    assert values("trainer-build", "ARG") == ["TORCH_INDEX=https://download.pytorch.org/whl/cpu"]
