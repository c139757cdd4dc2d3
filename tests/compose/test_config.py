"""docker-compose.yml, the overlays for telemetry, what stands in for Loki, and their manual, read without an engine."""

import re

import pytest
import yaml

from servicekit.telemetry.environment import VARIABLES
from tests.compose.composed import (
    BACKENDS,
    EMBEDDED_FILE,
    LIGHT,
    LOAD,
    LONG_RUNNING,
    ONE_SHOTS,
    OVERLAY,
    PROJECT,
    SERVICES,
    SHIPPED,
)
from tests.test_imports import imported

TEXT = (PROJECT / "docker-compose.yml").read_text()
FILE = yaml.safe_load(TEXT)
OVERLAY_TEXT = (PROJECT / "docker-compose.observability.yml").read_text()
LIGHT_TEXT = (PROJECT / "docker-compose.light.yml").read_text()


class Loader(yaml.SafeLoader):
    """Reads Compose's `!override` as what it stands before: that replaces what another file says."""


def overriding(loader, node):
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor("!override", overriding)


def whole(part):
    """A service with what it extends. What both say is the part's, but for the environment, which is both's."""
    if "extends" not in part:
        return part
    file, name = part["extends"]["file"], part["extends"]["service"]
    base = whole(yaml.load((PROJECT / file).read_text(), Loader)["services"][name])
    environment = base.get("environment", {}) | part.get("environment", {})
    return base | part | ({"environment": environment} if environment else {})


OVERLAY_FILE = yaml.safe_load(OVERLAY_TEXT)
ADDED = {name: whole(part) for name, part in OVERLAY_FILE["services"].items() if name not in FILE["services"]}
CHANGED = {name: part for name, part in OVERLAY_FILE["services"].items() if name in FILE["services"]}
LIGHT_FILE = yaml.load(LIGHT_TEXT, Loader)
LIGHT_PARTS = {name: whole(part) for name, part in LIGHT_FILE["services"].items()}
LIGHT_ADDED = {f"{name}, light": part for name, part in LIGHT_PARTS.items() if name not in FILE["services"]}
MANUAL = (PROJECT / "docs" / "compose.md").read_text()
SETTINGS = (PROJECT / "docs" / "settings.md").read_text()
PARTS = FILE["services"]
ALL = PARTS | ADDED
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
STAGES = {  # the image or stage that it starts from, its text
    name: (image, text)
    for image, name, text in re.findall(r"^FROM (\S+) AS (\S+)\n((?:(?!FROM ).*\n)*)", DOCKERFILE, re.MULTILINE)
}
TARGETS = ["service", "gateway-telemetry", "embedded-backend", "console", "migrations", "loadtest"]


def built(name):
    """The text of a stage and of those that it starts from."""
    image, text = STAGES[name]
    return (built(image) if image in STAGES else "") + text


BUILT = {target: built(target) for target in TARGETS}
IMAGES = {part["image"] for part in ALL.values() if "build" not in part} | {
    image for image, _ in STAGES.values() if image not in STAGES
}


STAND_IN_FILE = yaml.load((PROJECT / EMBEDDED_FILE).read_text(), Loader)
STAND_IN = {"loki, embedded": whole(STAND_IN_FILE["services"]["loki"])}
_CHANGES = STAND_IN_FILE["services"]["loki"]
_EXTENDED = yaml.safe_load((PROJECT / _CHANGES["extends"]["file"]).read_text())["services"]


def test_the_names_are_the_known_ones():
    assert FILE["name"] == "devopsmicroservices"
    assert list(FILE["networks"]) == ["micro-net"]
    assert "order_db_data" in FILE["volumes"]
    assert set(PARTS) == {*LONG_RUNNING, *ONE_SHOTS}
    assert {name: part["container_name"] for name, part in PARTS.items() if "container_name" in part} == {
        "order-db": "order-db"
    }


@pytest.mark.parametrize("part", ALL | STAND_IN | LIGHT_ADDED)
def test_a_container_is_hardened_and_limited(part):
    name, part = part.removesuffix(", light"), (ALL | STAND_IN | LIGHT_ADDED)[part]
    assert part["read_only"] is True
    assert part["cap_drop"] == ["ALL"]
    assert part["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit", "user", "init"} <= set(part)
    if name not in SHIPPED or name in PARTS:
        assert part["logging"]["driver"] == "json-file"
        assert {"max-size", "max-file"} == set(part["logging"]["options"])


def test_the_overlay_changes_what_is_sent_and_nothing_else():
    assert set(ADDED) == {*OVERLAY, *LOAD}
    assert [name for name, part in ALL.items() if part.get("profiles") == ["load"]] == list(LOAD)
    assert set(CHANGED) == {*SERVICES, "nginx"}
    assert all(set(part) == {"environment", "logging"} for part in CHANGED.values())


@pytest.mark.parametrize("part", SHIPPED)
def test_lines_are_shipped_without_waiting_and_with_bounds(part):
    logging = OVERLAY_FILE["services"][part]["logging"]
    assert logging["driver"] == "fluentd"
    options = logging["options"]
    assert options["tag"] == part
    assert options["fluentd-async"] == "true"
    assert options["fluentd-address"].startswith("127.0.0.1:")
    assert int(options["fluentd-buffer-limit"]) <= 2**14
    assert {"cache-max-size", "cache-max-file"} <= set(options)


def test_the_shop_waits_for_no_backend():
    assert not any(set(part.get("depends_on", ())) & set(OVERLAY) for part in [*PARTS.values(), *CHANGED.values()])


def test_only_what_prepares_volumes_is_root_or_has_a_capability():
    preparing = ["init", "prepare"]
    assert [name for name, part in ALL.items() if re.match(r"(0|root)(:|$)", part["user"])] == preparing
    assert [name for name, part in ALL.items() if "cap_add" in part] == preparing
    assert all(ALL[name]["cap_add"] == ["CHOWN", "DAC_OVERRIDE"] for name in preparing)
    assert all(ALL[name]["network_mode"] == "none" for name in preparing)
    assert all(list(part["networks"]) == ["micro-net"] for name, part in ALL.items() if name not in preparing)
    assert not any({"privileged", "pid", "ipc"} & set(part) for part in ALL.values())


def test_what_stands_in_for_loki_replaces_it_alone_and_looks_the_same_from_outside():
    assert list(STAND_IN_FILE) == ["services"]
    assert list(STAND_IN_FILE["services"]) == ["loki"]
    loki, (stand_in,) = ALL["loki"], STAND_IN.values()
    assert "!override" in (PROJECT / EMBEDDED_FILE).read_text()
    assert "/embedded-backend:" in stand_in["image"], "its build would get the name of Loki's image"
    for same in ("ports", "user", "networks", "restart", "depends_on", "stop_grace_period"):
        assert stand_in[same] == loki[same], same
    assert stand_in["mem_limit"] <= loki["mem_limit"]
    assert [volume.partition(":")[0] for volume in stand_in["volumes"]] == ["loki_data"]


def test_the_light_overlay_has_what_local_mode_has_and_the_collector_for_log_lines_only():
    assert {name.removesuffix(", light") for name in LIGHT_ADDED} == {*LIGHT, "prepare"}
    assert {name for name in LIGHT_PARTS if name in PARTS} == set(CHANGED)
    for name in (*SERVICES, "gateway-telemetry"):
        assert LIGHT_PARTS[name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://embedded-backend:4318"
    assert LIGHT_PARTS["nginx"]["environment"]["GATEWAY_TRACING"] == "log"
    collector = LIGHT_PARTS["collector"]
    assert [word for word in collector["command"] if word.startswith("--config")] == [
        "--config=/etc/otelcol/config.yaml"
    ]
    base = yaml.safe_load((PROJECT / "observability" / "collector" / "config.yaml").read_text())
    assert {pipeline.partition("/")[0] for pipeline in base["service"]["pipelines"]} == {"logs"}


def test_nothing_waits_for_what_the_light_overlay_does_not_have():
    known = PARTS.keys() | LIGHT_PARTS.keys()
    assert not [name for name, part in LIGHT_PARTS.items() if not known >= set(part.get("depends_on", ()))]
    text = LIGHT_TEXT + (PROJECT / "observability" / "prometheus" / "light.yml").read_text()
    for name in set(OVERLAY) - {*LIGHT, "prepare"}:
        assert not re.search(rf"\b(http://)?{name}:\d", text), name


@pytest.mark.parametrize("parts", [LIGHT_PARTS, ADDED], ids=["light", "full"])
def test_no_two_parts_publish_the_same_port_and_all_but_the_gateway_on_loopback(parts):
    published = [port for part in [*PARTS.values(), *parts.values()] for port in part.get("ports", [])]
    numbers = [re.sub(r".*:-(\d+)\}:\d+$", r"\1", port) for port in published]
    assert len(numbers) == len(set(numbers))
    assert [port for port in published if not port.startswith("127.0.0.1:")] == ["${GATEWAY_PORT:-80}:8080"]


def test_the_console_asks_what_is_there():
    for parts in (PARTS | ALL, PARTS | LIGHT_PARTS):
        console = parts["console"]["environment"]
        for name in ("GATEWAY_URL", "JAEGER_URL", "LOKI_URL", "PROMETHEUS_URL"):
            assert re.fullmatch(r"http://([\w-]+):\d+", console[name])[1] in parts, name
        for name, port in (("JAEGER", 16686), ("LOKI", 3100)):
            here = console[f"{name}_PUBLIC_URL"].removeprefix("http://localhost:")
            asked = console[f"{name}_URL"].removeprefix("http://").partition(":")[0]
            assert f"127.0.0.1:{here}:{port}" in parts[asked]["ports"]


@pytest.mark.parametrize("parts", [LIGHT_PARTS, ADDED], ids=["light", "full"])
@pytest.mark.parametrize("name", ["CONSOLE_DEMO_LOGIN", "LOG_LEVEL", "TRUSTED_HOSTS"])
def test_a_setting_of_the_console_comes_from_the_shell(parts, name):
    assert parts["console"]["environment"].get(name, "absent") is None


def test_the_image_of_the_embedded_backend_has_a_user_and_a_folder_of_its_own():
    (part,) = _EXTENDED.values()
    text = BUILT[part["build"]["target"]]
    uid, gid = part["user"].split(":")
    assert f"USER {uid}:{gid}\n" in text
    assert f"install -d -o {uid} -g {gid} /data" in text
    assert uid not in {other["user"].partition(":")[0] for other in ALL.values()}


@pytest.mark.parametrize("service", [*LONG_RUNNING, *BACKENDS, *STAND_IN, "embedded-backend, light"])
def test_a_long_running_container_restarts_and_has_time_to_stop(service):
    part = (ALL | STAND_IN | LIGHT_ADDED)[service]
    assert part["restart"] == "unless-stopped"
    assert {"cpus", "stop_grace_period"} <= set(part)
    if service == "collector":  # its image has nothing that could ask
        return
    assert "healthcheck" in part or "\nHEALTHCHECK --" in BUILT[part["build"]["target"]]


@pytest.mark.parametrize("file", ["Dockerfile", *sorted(path.name for path in PROJECT.glob("docker-compose*.yml"))])
def test_who_starts_is_looked_at_each_second_and_who_runs_each_ten(file):
    """By default Docker looks every five seconds, while whatever depends on the container waits."""
    text = (PROJECT / file).read_text()
    checks = re.findall(r"^HEALTHCHECK --.*|^    healthcheck:\n(?: {6}.*\n)+", text, re.MULTILINE)
    assert len(checks) == len(re.findall(r"^HEALTHCHECK --|^ *healthcheck:", text, re.MULTILINE))
    for check in checks:
        assert re.search(r"start.interval[=:] ?1s\b", check)
        assert re.search(r"start.period[=:] ?\d+s\b", check)  # without it Compose takes no start_interval
        assert re.search(r"[ -]interval[=:] ?10s\b", check)


@pytest.mark.parametrize("image", BUILT)
def test_an_image_says_how_it_is_unless_it_runs_once(image):
    assert ("\nHEALTHCHECK --" in BUILT[image]) == (image != "migrations")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_can_have_replicas(service):
    assert not {"ports", "container_name"} & set(PARTS[service])


@pytest.mark.parametrize("image", sorted(IMAGES))
def test_an_image_is_pinned_by_a_full_tag(image):
    full = (
        r":v?\d+\.\d+\.\d+$"
        if image in {part.get("image") for part in ADDED.values()}
        else r":\d+\.\d+(\.\d+)?-[\w-]+$"
    )
    assert re.search(full, image)


def test_one_dockerfile_builds_all_and_all_of_it_is_used():
    assert not [path for path in PROJECT.glob("*/Dockerfile*") if ".venv" not in path.parts]
    builds = [part["build"] for part in (ALL | STAND_IN).values() if "build" in part]
    assert not any("dockerfile" in build for build in builds)
    assert {build["target"] for build in builds} == set(TARGETS)
    needed = "".join(text for text in BUILT.values())
    on_the_way = STAGES.keys() - {*TARGETS} - {image for image, _ in STAGES.values()}
    assert {name for name in on_the_way if f"--from={name} " not in needed} == set()


@pytest.mark.parametrize("part", [name for name, part in (ALL | STAND_IN | LIGHT_ADDED).items() if "build" in part])
def test_what_is_built_here_is_pulled_when_a_version_is_asked_for(part):
    part = (ALL | STAND_IN | LIGHT_ADDED)[part]
    service = part["build"].get("args", {}).get("SERVICE")
    name = f"{service}-service" if service else part["build"]["target"]
    image = "${SHOP_VERSION:+${SHOP_REGISTRY:-registry.example/shop}/%s:${SHOP_VERSION-}}"
    assert part["image"] == image % name
    assert "pull_policy" not in part


def test_the_five_services_and_the_gateways_telemetry_share_all_but_their_own_code():
    assert STAGES["service"][0] == STAGES["gateway-telemetry"][0] == "shared"
    builds = [PARTS[service]["build"] for service in SERVICES]
    assert {build["target"] for build in builds} == {"service"}
    assert [f"{build['args']['SERVICE']}-service" for build in builds] == list(SERVICES)


ENTRIES = {  # the modules that are run in an image, as the folders of this tree have them
    "service": [f"services/{service.removesuffix('-service')}/src" for service in SERVICES],
    "gateway-telemetry": ["observability/gateway"],
    "embedded-backend": ["observability/embedded"],
    "console": ["observability/console"],
    "loadtest": ["loadtest/__main__.py", "loadtest/locustfile.py"],
}
OURS = {
    "servicekit": "services",
    "shop": "services",
    "local": "",
    "loadtest": "",
    "observability": "",
    "scenarios": "",
    "bench": "",
}


def needed(entries):
    """The files of ours that some import, and what these import, and so on."""
    todo = [path for entry in entries for path in ([PROJECT / entry] if entry.endswith(".py") else files(entry))]
    found = set()
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for name in imported(path.read_text()):
            parts = name.split(".")
            if parts[0] in OURS:
                module = PROJECT.joinpath(OURS[parts[0]], *parts)
                todo += [file for file in (module.with_suffix(".py"), module / "__init__.py") if file.is_file()]
    return sorted(str(path.relative_to(PROJECT)) for path in found)


def files(folder):
    return list((PROJECT / folder).rglob("*.py"))


@pytest.mark.parametrize("image", ENTRIES)
def test_an_image_has_all_that_its_code_imports(image):
    copied = [
        source.replace("$SERVICE", service.removesuffix("-service"))
        for sources in re.findall(r"^COPY (?!--)(.+) \S+$", BUILT[image], re.MULTILINE)
        for source in sources.split()
        for service in SERVICES
    ]
    missing = [path for path in needed(ENTRIES[image]) if not path.startswith(tuple(copied))]
    assert missing == []


def test_what_is_copied_is_let_into_the_context_and_nothing_else():
    let_in = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for sources in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    }
    assert {source for source in copied if not source.startswith(tuple(let_in))} == set()
    assert {path for path in let_in if not any(source.startswith(path) for source in copied)} == set()


@pytest.mark.parametrize("image", BUILT)
def test_an_image_is_not_root_by_itself(image):
    user = re.findall(r"^USER (\S+)$", BUILT[image], re.MULTILINE)[-1]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)


def test_the_manual_tells_the_published_ports():
    published = {port: name for name, part in ALL.items() for port in part.get("ports", [])}
    assert all(port.startswith("127.0.0.1:") for port, name in published.items() if name != "nginx")
    rows = re.findall(r"^\| ((?:127\.0\.0\.1:)?)(\d+) \(`(\w+)`\) \| `([\w-]+)` \|", MANUAL, re.MULTILINE)
    assert {f"{address}${{{variable}:-{port}}}": part for address, port, variable, part in rows} == {
        port.rpartition(":")[0]: name for port, name in published.items()
    }


def test_the_manual_tells_the_volumes():
    rows = re.findall(r"^\| `devopsmicroservices_(\w+)` \|", MANUAL, re.MULTILINE)
    assert rows == list(dict.fromkeys([*FILE["volumes"], *OVERLAY_FILE["volumes"], *LIGHT_FILE["volumes"]]))


def variables():
    """What a person can set: in ${...}, or an environment variable without a value."""
    passed = {
        name
        for part in [*ALL.values(), *CHANGED.values()]
        for name, value in part.get("environment", {}).items()
        if value is None or str(value).startswith("${")
    }
    return passed | set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT + OVERLAY_TEXT + LIGHT_TEXT))


def test_the_manual_names_every_variable_and_no_other():
    settings = MANUAL[MANUAL.index("## Ports") : MANUAL.index("## What happens")]
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", settings))
    assert "PAYMENT_LIMIT_MINOR" in named
    prefixes = ("LOAD_",)
    passed = {name for name in variables() if not name.startswith((*prefixes, "OTEL_"))}
    assert {name for name in named if not name.startswith("OTEL_")} - set(prefixes) == passed


SENDERS = [*SERVICES, "gateway-telemetry"]


@pytest.mark.parametrize("part", SENDERS)
def test_each_variable_of_opentelemetry_reaches_who_sends_or_is_named_as_one_that_does_not(part):
    kept_back = re.search(r"^Not passed on are .+?\n\n(?=The)", MANUAL, re.MULTILINE | re.DOTALL)[0]
    named = set(re.findall(r"`(OTEL_\w+)`", kept_back))
    environment = OVERLAY_FILE["services"][part]["environment"]
    given = {name for name, value in environment.items() if name.startswith("OTEL_") and value is not None}
    passed = {name for name, value in environment.items() if name.startswith("OTEL_") and value is None}
    assert given == {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_RESOURCE_ATTRIBUTES"}
    assert passed | {"OTEL_RESOURCE_ATTRIBUTES"} == {variable.name for variable in VARIABLES} - named
    private = "ENDPOINT|(OTLP|TRACES)_HEADERS|CERTIFICATE|KEY|SERVICE_NAME"
    assert not [name for name in passed if re.search(private, name)]


def test_a_resource_attribute_of_ones_own_is_added_to_ours():
    given = OVERLAY_FILE["services"]["order-service"]["environment"]["OTEL_RESOURCE_ATTRIBUTES"]
    assert given == "deployment.environment.name=compose${OTEL_RESOURCE_ATTRIBUTES:+,${OTEL_RESOURCE_ATTRIBUTES-}}"


def test_the_base_file_sends_no_spans():
    assert "OTEL_" not in TEXT


def test_every_variable_that_examples_in_the_manual_set_exists():
    assert set(re.findall(r"`([A-Z_]+)=\S+ docker", MANUAL)) <= variables()


def test_every_setting_of_the_processor_reaches_the_container():
    documented = set(re.findall(r"`(PAYMENT_\w+)`", SETTINGS)) - {
        "PAYMENT_URL",
        "PAYMENT_TIMEOUT_SECONDS",
        "PAYMENT_PORT",
    }
    assert documented == {name for name in PARTS["payment-service"]["environment"] if name.startswith("PAYMENT_")} - {
        "PAYMENT_URL"
    }


def test_no_password_is_in_the_file():
    for name, part in ALL.items():
        for variable, value in part.get("environment", {}).items():
            assert "PASSWORD" not in variable or variable.endswith(("_FILE", "_DIR")), (name, variable)
            assert not re.search(r"://[^/]*:[^/]*@", str(value)), (name, variable)


def test_each_way_of_sampling_that_the_manual_names_is_a_file():
    folder = PROJECT / "observability" / "collector"
    named = re.search(r"`COLLECTOR_SAMPLING` \(`([\w-]+)` or `([\w-]+)`\)", MANUAL).groups()
    assert {f"{name}.yaml" for name in named} == {file.name for file in folder.glob("*.yaml")} - {
        "config.yaml",
        "kustomization.yaml",
    }
    assert f"${{COLLECTOR_SAMPLING:-{named[0]}}}.yaml" in OVERLAY_TEXT
