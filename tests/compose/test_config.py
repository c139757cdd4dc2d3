"""docker-compose.yml and its manual, read without an engine."""

import re

import pytest
import yaml

from tests.compose.composed import LONG_RUNNING, ONE_SHOTS, PROJECT, SERVICES

TEXT = (PROJECT / "docker-compose.yml").read_text()
FILE = yaml.safe_load(TEXT)
MANUAL = (PROJECT / "docs" / "compose.md").read_text()
README = (PROJECT / "README.md").read_text()
PARTS = FILE["services"]
DOCKERFILES = ["services/Dockerfile", "order-db-services/Dockerfile"]
IMAGES = {part["image"] for part in PARTS.values() if "image" in part} | {
    image for file in DOCKERFILES for image in re.findall(r"^FROM (\S+)", (PROJECT / file).read_text(), re.MULTILINE)
}


def test_the_names_are_the_known_ones():
    assert FILE["name"] == "devopsmicroservices"
    assert list(FILE["networks"]) == ["micro-net"]
    assert "order_db_data" in FILE["volumes"]
    assert set(PARTS) == {*LONG_RUNNING, *ONE_SHOTS}
    assert {name: part["container_name"] for name, part in PARTS.items() if "container_name" in part} == {
        "order-db": "order-db"
    }


@pytest.mark.parametrize("part", PARTS)
def test_a_container_is_hardened_and_limited(part):
    part = PARTS[part]
    assert part["read_only"] is True
    assert part["cap_drop"] == ["ALL"]
    assert part["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit", "user", "init"} <= set(part)
    assert part["logging"]["driver"] == "json-file"
    assert {"max-size", "max-file"} == set(part["logging"]["options"])


def test_only_init_is_root_or_has_a_capability():
    assert [name for name, part in PARTS.items() if re.match(r"(0|root)(:|$)", part["user"])] == ["init"]
    assert {name: part["cap_add"] for name, part in PARTS.items() if "cap_add" in part} == {
        "init": ["CHOWN", "DAC_OVERRIDE"]
    }
    assert PARTS["init"]["network_mode"] == "none"
    assert all(part["networks"] == ["micro-net"] for name, part in PARTS.items() if name != "init")
    assert not any({"privileged", "pid", "ipc"} & set(part) for part in PARTS.values())


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_a_long_running_container_restarts_and_has_time_to_stop(service):
    part = PARTS[service]
    assert part["restart"] == "unless-stopped"
    assert {"cpus", "stop_grace_period"} <= set(part)
    dockerfile = PROJECT / part["build"]["dockerfile"] if "build" in part else None
    assert "healthcheck" in part or "\nHEALTHCHECK --" in dockerfile.read_text()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_can_have_replicas(service):
    assert not {"ports", "container_name"} & set(PARTS[service])


@pytest.mark.parametrize("image", sorted(IMAGES))
def test_an_image_is_pinned_by_a_full_tag(image):
    assert re.search(r":\d+\.\d+(\.\d+)?-[\w-]+$", image)


def test_the_five_services_share_one_dockerfile():
    builds = [PARTS[service]["build"] for service in SERVICES]
    assert {build["dockerfile"] for build in builds} == {"services/Dockerfile"}
    assert [f"{build['args']['SERVICE']}-service" for build in builds] == list(SERVICES)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_is_not_root_by_itself(dockerfile):
    assert re.findall(r"^USER (\S+)$", (PROJECT / dockerfile).read_text(), re.MULTILINE)[-1] == "65534:65534"


def test_the_manual_tells_the_published_ports():
    published = {port: name for name, part in PARTS.items() for port in part.get("ports", [])}
    rows = re.findall(r"^\| ((?:127\.0\.0\.1:)?)(\d+) \(`(\w+)`\) \| `([\w-]+)` \|", MANUAL, re.MULTILINE)
    assert {f"{address}${{{variable}:-{port}}}": part for address, port, variable, part in rows} == {
        port.rpartition(":")[0]: name for port, name in published.items()
    }


def test_the_manual_tells_the_volumes():
    rows = re.findall(r"^\| `devopsmicroservices_(\w+)` \|", MANUAL, re.MULTILINE)
    assert rows == list(FILE["volumes"])


def variables():
    """What a person can set: in ${...}, or an environment variable without a value."""
    passed = {
        name
        for part in PARTS.values()
        for name, value in part.get("environment", {}).items()
        if value is None or str(value).startswith("${")
    }
    return passed | set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT))


def test_the_manual_names_every_variable_and_no_other():
    settings = MANUAL[MANUAL.index("## Settings") : MANUAL.index("## What happens")]
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", settings))
    assert "PAYMENT_" in named
    existing = {name for name in variables() if not name.startswith("PAYMENT_")}
    assert named - {"PAYMENT_"} == existing


def test_every_variable_that_examples_in_the_manual_set_exists():
    assert set(re.findall(r"`([A-Z_]+)=\S+ docker", MANUAL)) <= variables()


def test_every_setting_of_payments_faults_reaches_the_container():
    documented = set(re.findall(r"`(PAYMENT_\w+)`", README)) - {
        "PAYMENT_URL",
        "PAYMENT_TIMEOUT_SECONDS",
        "PAYMENT_PORT",
    }
    assert documented == {name for name in PARTS["payment-service"]["environment"] if name.startswith("PAYMENT_")} - {
        "PAYMENT_URL"
    }


def test_no_password_is_in_the_file():
    for name, part in PARTS.items():
        for variable, value in part.get("environment", {}).items():
            assert "PASSWORD" not in variable or variable.endswith(("_FILE", "_DIR")), (name, variable)
            assert not re.search(r"://[^/]*:[^/]*@", str(value)), (name, variable)
