"""The real stack, as it is described before anything is started."""

import configparser
import contextlib
import dataclasses
import glob
import os
import stat
import subprocess
from pathlib import Path

import pytest

from local import processes, rundir, stack, supervision
from local.errors import LocalError, StepError
from local.parts import Part
from local.settings import Settings
from local.stack import build
from servicekit.config import ServerSettings
from tests.fixtures.otlp import Collector
from tests.fixtures.ports import free_ports
from tests.fixtures.services import Client, eventually


@pytest.fixture
def settings(tmp_path):
    settings = Settings.read({"RUN_DIR": str(tmp_path / "run"), "USER_PORT": "6002"})
    rundir.prepare(settings.run_dir)
    return settings


@pytest.fixture
def parts(settings):
    return {part.name: part for part in build(settings).parts}


def test_the_parts_have_the_documented_names_and_ports(parts):
    assert {part.name: list(part.ports.values()) for part in parts.values()} == {
        "order-db": [5433],
        "embedded-backend": [4318, 16686, 3100],
        "auth-service": [5001],
        "user-service": [6002],
        "product-service": [5003],
        "order-service": [5004],
        "payment-service": [5005],
        "gateway-telemetry": [9145],
        "prometheus": [9090],
        "console": [3000],
        "nginx": [8080],
    }


def test_each_port_can_be_chosen_by_the_variable_that_the_part_names(parts):
    for part in parts.values():
        for setting in part.ports:
            moved = {other.name: other.ports for other in build(Settings.read({setting: "7777"})).parts}
            assert moved[part.name][setting] == 7777


def test_each_step_stands_after_what_it_needs(settings):
    seen = set()
    for step in build(settings).steps:
        assert seen.issuperset(step.needs), step.name
        seen.add(step.name)


def test_what_takes_the_telemetry_is_stopped_after_those_that_send_it(settings):
    supervision._configure(settings.run_dir, build(settings))
    configuration = configparser.ConfigParser(interpolation=None)
    configuration.read(settings.run_dir / "conf" / "supervisord.conf")
    groups = [configuration[name] for name in configuration.sections() if name.startswith("group:")]
    stage = {part: int(group["priority"]) for group in groups for part in group["programs"].split(",")}
    senders = [part for part in stage if part.endswith("-service")]
    assert stage["embedded-backend"] < min(stage[name] for name in (*senders, "gateway-telemetry"))
    assert stage["gateway-telemetry"] < stage["nginx"]


def test_a_service_may_take_longer_to_stop_than_it_gives_its_requests(settings, parts):
    assert settings.graceful_timeout_seconds == ServerSettings.model_fields["graceful_timeout_seconds"].default
    assert parts["order-service"].stop_seconds > 15 + 5  # and its background task
    patient = build(Settings.read({"GRACEFUL_TIMEOUT_SECONDS": "300"})).parts
    assert all(part.stop_seconds > 305 for part in patient if part.name.endswith("-service"))


def test_settings_that_will_do_pass_the_check(settings, monkeypatch):
    monkeypatch.setenv("CATALOGUE_FILE", "services/product/src/product_service/catalogue.json")
    monkeypatch.setenv("LOGIN_RATE", "7r/s")
    build(settings).check()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAYMENT_LIMIT_MINOR", "much"),
        ("THREADS", "0"),
        ("DATABASE_POOL_SIZE", "0"),
        ("LOG_LEVEL", "loud"),
        ("SEED_DEMO_ADMIN", "perhaps"),
        ("CATALOGUE_FILE", "/nope"),
        ("CATALOGUE_FILE", "README.md"),
        ("LOGIN_RATE", "bogus_rate"),
        ("RETENTION_HOURS", "-1"),
        ("GATEWAY_TRACING", "bogus"),
    ],
)
def test_a_setting_that_a_service_or_the_gateway_would_refuse_is_told_in_a_sentence(settings, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(LocalError, match=rf"^.*\b({name}|bogus_rate)\b.*$"):
        build(settings).check()


def test_a_lost_password_of_a_database_with_data_is_told(settings):
    rundir.make_secrets(settings.run_dir, ("orders_app",))
    (settings.run_dir / "data").mkdir()
    (settings.run_dir / "data" / "PG_VERSION").touch()
    with pytest.raises(LocalError, match=r"restore .*/secrets/orders_user, or `make reset`"):
        build(settings).check()


def test_a_task_that_hangs_is_ended(settings):
    hurried = dataclasses.replace(settings, start_timeout_seconds=1)
    with pytest.raises(StepError, match=r"nap did not end within 1 s") as caught:
        stack._run(hurried, "nap", {}, "-c", "import time; print('zzz', flush=True); time.sleep(60)")
    assert caught.value.log.read_text() == "zzz\n"


def test_telemetry_goes_to_the_embedded_backend_unless_it_is_off(parts):
    for name in ("order-service", "gateway-telemetry"):
        assert parts[name].environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"
    without = build(Settings.read({"TELEMETRY": "off"}))
    assert not {"embedded-backend", "gateway-telemetry", "prometheus"} & {part.name for part in without.parts}
    assert not any("OTEL_EXPORTER_OTLP_ENDPOINT" in part.environment for part in without.parts)
    assert "make story" not in without.welcome


@contextlib.contextmanager
def closing_collector():
    collector = Collector()
    try:
        yield collector
    finally:
        collector.stop()


ELSEWHERE = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@pytest.mark.parametrize("variable", ELSEWHERE)
def test_a_callers_endpoint_is_left_to_all_that_send(monkeypatch, variable):
    monkeypatch.setenv(variable, "https://backend.example/otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=canary")
    for part in build(Settings.read({})).parts:
        assert not {name for name in part.environment if name.startswith("OTEL_EXPORTER_")}, part.name


@pytest.mark.parametrize(
    "endpoint", [{}, dict.fromkeys(ELSEWHERE, " "), {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://x"}]
)
@pytest.mark.parametrize("signal", ["", "TRACES_"])
@pytest.mark.parametrize("setting", ["HEADERS", "CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY", "PROTOCOL"])
def test_what_is_for_another_backend_does_not_go_to_the_one_here(monkeypatch, endpoint, signal, setting):
    for name, value in {**endpoint, f"OTEL_EXPORTER_OTLP_{signal}{setting}": "canary"}.items():
        monkeypatch.setenv(name, value)
    parts = {part.name: part for part in build(Settings.read({})).parts}
    for name in ("order-service", "gateway-telemetry"):
        assert parts[name].environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"
        assert parts[name].environment[f"OTEL_EXPORTER_OTLP_{signal}{setting}"] == ""


HERE = "Jaeger's API here has none."


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318/"}, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, ""),
        ({"OTEL_TRACES_EXPORTER": "console,otlp", "OTEL_SDK_DISABLED": "false"}, ""),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://ada:canary@backend.example:8443/canary?key=canary"},
            "Traces go to https://backend.example:8443, as OTEL_EXPORTER_OTLP_ENDPOINT says: ",
        ),
        (
            {ELSEWHERE[0]: "http://localhost:4318", ELSEWHERE[1]: "http://localhost:4319/v1/traces"},
            "Traces go to http://localhost:4319, as OTEL_EXPORTER_OTLP_TRACES_ENDPOINT says: ",
        ),
        (
            {ELSEWHERE[0]: "http://other:4318", ELSEWHERE[1]: "canary:4317"},
            "Traces go to http://other:4318, as OTEL_EXPORTER_OTLP_ENDPOINT says: ",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://canary:x"},
            "No traces are sent, OTEL_EXPORTER_OTLP_ENDPOINT being no URL with http or https: ",
        ),
        ({"OTEL_TRACES_EXPORTER": " None "}, "No traces are sent, as OTEL_TRACES_EXPORTER says: "),
        ({"OTEL_TRACES_EXPORTER": "console"}, "No traces are sent, as OTEL_TRACES_EXPORTER says: "),
        (
            {"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://canary"},
            "No traces are made, as OTEL_SDK_DISABLED says: ",
        ),
    ],
)
def test_the_welcome_says_in_a_line_where_traces_go_if_not_here(monkeypatch, env, said):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    welcome = build(Settings.read({})).welcome
    assert [line for line in welcome.splitlines() if HERE in line] == ([said + HERE] if said else [])
    assert "canary" not in welcome


@pytest.fixture
def serve_part(tmp_path):
    """Run a part as the supervisor does, by its script, on free ports, with these variables of the caller's."""
    started = []

    def run(name, **env):
        environ = {"RUN_DIR": str(tmp_path / "run")}
        for setting, port in zip(("OTLP_PORT", "PRODUCT_PORT", "GATEWAY_TELEMETRY_PORT"), free_ports(3), strict=True):
            environ[setting] = str(port)
        settings = Settings.read(environ | {name: env.pop(name) for name in ("OTLP_PORT",) if name in env})
        rundir.prepare(settings.run_dir)
        [part] = [part for part in build(settings).parts if part.name == name]
        supervision.write_script(settings.run_dir, part)
        with (tmp_path / "log").open("wb") as log:
            script = ["sh", settings.run_dir / "conf" / f"{name}.sh"]
            started.append(subprocess.Popen(script, env={**os.environ, **env}, stdout=log, stderr=log))
        eventually(lambda: part.ready() is None, 30)
        return next(iter(part.ports.values()))

    yield run
    for process in started:
        processes.end(process, 20)


KEY = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=canary", "OTEL_SERVICE_NAME": "canary"}


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_service_takes_a_key_to_the_callers_backend_and_not_to_the_one_here(serve_part, monkeypatch, elsewhere):
    with closing_collector() as here, closing_collector() as theirs:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": theirs.endpoint} if elsewhere else {}
        for name, value in (KEY | endpoint).items():
            monkeypatch.setenv(name, value)
        port = serve_part("product-service", OTLP_PORT=str(here.port))
        assert Client(f"http://127.0.0.1:{port}").get("/products/1").ok
        eventually(lambda: here.spans or theirs.spans)
        got, other = (theirs, here) if elsewhere else (here, theirs)
        assert {span.service for span in got.spans} == {"product-service"}
        assert {headers.get("api-key") for headers in got.headers} == ({"canary"} if elsewhere else {None})
        assert other.requests == 0


def test_the_welcome_says_where_to_look():
    welcome = build(Settings.read({"JAEGER_PORT": "1686", "PROMETHEUS_PORT": "1909", "CONSOLE_PORT": "3003"})).welcome
    assert welcome.strip().startswith("Open http://localhost:3003")
    for place in ("make story ORDER=1", "localhost:1686/api/traces", "localhost:3100/loki/", "localhost:1909/api/"):
        assert place in welcome


@pytest.mark.parametrize(
    ("value", "closed"), [("false", True), ("False", True), ("0", True), ("true", False), ("", False)]
)
def test_the_welcome_shows_a_login_that_works(monkeypatch, value, closed):
    monkeypatch.setenv("SEED_DEMO_ADMIN", value)
    welcome = build(Settings.read({})).welcome
    assert ('"username":"admin","password":"password"' in welcome) is not closed
    assert ("The demo login is closed" in welcome) is closed
    assert ("/users/ " in welcome) is closed


def test_a_folder_with_a_pattern_in_its_name_is_followed_as_it_is_called(tmp_path):
    folder = tmp_path / "[a-c]*"
    parts = {part.name: part for part in build(Settings.read({"RUN_DIR": str(folder)})).parts}
    (folder / "logs").mkdir(parents=True)
    for name in ("order-service", "nginx", "gateway-telemetry", "order-db", "embedded-backend"):
        (folder / "logs" / f"{name}.log").touch()
    patterns = parts["embedded-backend"].environment["LOG_FILES"].split(",")
    found = {Path(path).stem for pattern in patterns for path in glob.glob(pattern)}  # noqa: PTH207 - as the backend does
    assert found == {"order-service", "nginx", "gateway-telemetry"}


def test_a_folder_that_the_backend_cannot_be_told_is_refused(tmp_path):
    settings = Settings.read({"RUN_DIR": str(tmp_path / "a,b")})
    with pytest.raises(LocalError, match="a,b has a comma in it: choose another folder with RUN_DIR"):
        build(settings).check()


def test_each_service_has_its_own_name_whatever_the_callers_is(parts):
    for name in ("auth-service", "order-service"):
        assert parts[name].environment["OTEL_SERVICE_NAME"] == name
    assert parts["gateway-telemetry"].environment["OTEL_SERVICE_NAME"] == ""  # it has one name for spans, one for lines


def test_a_service_is_told_where_the_others_are(parts):
    assert parts["order-service"].environment["USER_URL"] == "http://127.0.0.1:6002"


def test_a_service_gets_the_role_and_password_of_its_own_schema_only(parts, settings):
    for name, role in {"user": "users_app", "order": "orders_app", "payment": "payments_app"}.items():
        environment = parts[f"{name}-service"].environment
        assert environment["DATABASE_USER"] == role
        assert environment["DATABASE_PASSWORD_FILE"] == str(settings.run_dir / "secrets" / role)
    for name in ("auth", "product"):
        assert "DATABASE_USER" not in parts[f"{name}-service"].environment


def test_a_client_of_auth_service_gets_its_own_secret_and_auth_service_all_of_them(parts, settings):
    secrets = settings.run_dir / "secrets"
    assert parts["order-service"].environment["CLIENT_SECRET_FILE"] == str(secrets / "order-service")
    assert parts["auth-service"].environment["CLIENT_SECRETS_DIR"] == str(secrets)
    for name in ("user", "product", "payment"):
        assert not any("SECRET" in variable for variable in parts[f"{name}-service"].environment)


def test_a_start_script_hands_any_value_on_unchanged(settings):
    value = 'it\'s 100% "odd"; $(touch x) `y`\n\\ Ünicode'
    part = Part(
        name="odd",
        ports={"X": 1},
        command=lambda: ["sh", "-c", 'printf %s "$ODD"'],
        ready=lambda: None,
        environment={"ODD": value},
    )
    supervision.write_script(settings.run_dir, part)
    script = settings.run_dir / "conf" / "odd.sh"
    assert subprocess.run(["sh", script], capture_output=True, check=True).stdout.decode() == value


def test_no_password_stands_in_a_start_script(settings, parts):
    rundir.make_secrets(settings.run_dir, ("orders_app",))
    supervision.write_script(settings.run_dir, parts["order-service"])
    password = (settings.run_dir / "secrets" / "orders_app").read_text().strip()
    assert password not in (settings.run_dir / "conf" / "order-service.sh").read_text()
    assert stat.S_IMODE((settings.run_dir / "conf").stat().st_mode) == 0o700
