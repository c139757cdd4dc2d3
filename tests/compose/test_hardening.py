"""Who breaks into a container finds little: no root, nothing to write to, no capability, no other service's secret."""

import json
import re

import pytest

from tests.compose.composed import LONG_RUNNING, ONE_SHOTS

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

UIDS = {
    "order-db": 999,
    "nginx": 101,
    "auth-service": 10001,
    "user-service": 10002,
    "product-service": 10003,
    "order-service": 10004,
    "payment-service": 10005,
}
READS = {
    "order-db": {"orders_user"},
    "user-service": {"users_app"},
    "order-service": {"orders_app"},
    "payment-service": {"payments_app"},
}
each_container = pytest.mark.parametrize("service", LONG_RUNNING)
every_container = pytest.mark.parametrize("service", [*LONG_RUNNING, *ONE_SHOTS])


@every_container
def test_it_has_the_limits_and_no_rights(shop, service):
    host = shop.inspect(service)["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert sorted(host["CapAdd"] or []) == (["CAP_CHOWN", "CAP_DAC_OVERRIDE"] if service == "init" else [])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Privileged"] is False
    assert 0 < host["Memory"] <= 512 * 2**20
    assert 0 < host["PidsLimit"] <= 256
    assert host["LogConfig"]["Type"] == "json-file"
    assert {"max-size", "max-file"} <= set(host["LogConfig"]["Config"])
    assert not any("docker.sock" in bind for bind in host["Binds"] or [])


@each_container
def test_it_comes_back_and_says_how_it_is(shop, service):
    container = shop.inspect(service)
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert container["Config"]["Healthcheck"]["Test"][0] == "CMD"  # not CMD-SHELL: no shell is needed
    assert container["State"]["Health"]["Status"] == "healthy"


@pytest.mark.parametrize("service", ONE_SHOTS)
def test_a_one_shot_runs_once_and_init_alone_is_root(shop, service):
    container = shop.inspect(service)
    assert container["HostConfig"]["RestartPolicy"]["Name"] in {"", "no"}
    assert (container["Config"]["User"] == "0:0") == (service == "init")
    assert (container["HostConfig"]["NetworkMode"] == "none") == (service == "init")
    assert container["Config"]["User"], "an image's default may change"


@each_container
def test_no_process_in_it_is_root_or_could_become_it(shop, service):
    uid = UIDS[service]
    assert shop.inspect(service)["Config"]["User"] == f"{uid}:{uid}"
    _, status = shop.inside(service, "sh", "-c", "cat /proc/[0-9]*/status")
    found = re.findall(r"^(Uid|Gid|Groups|CapEff|CapPrm|CapBnd|NoNewPrivs):\s*(.*?)\s*$", status, re.MULTILINE)
    assert len(found) >= 2 * 7, status  # init, and what it started
    ids = "\t".join([str(uid)] * 4)
    expected = {"Uid": ids, "Gid": ids, "NoNewPrivs": "1"}
    for name, value in found:
        if name == "Groups":
            assert set(value.split()) <= {str(uid)}
        else:
            assert value == expected.get(name, "0" * 16), name


@each_container
@pytest.mark.parametrize("user", [None, 0], ids=["itself", "root"])
def test_its_root_file_system_cannot_be_written_to(shop, service, user):
    for path in ("/probe", "/etc/probe", "/usr/bin/probe"):
        status, message = shop.inside(service, "touch", path, user=user)
        assert status != 0
        assert user is None or "Read-only file system" in message, message


@each_container
def test_it_reads_no_other_containers_password(shop, service):
    script = "for f in /run/secrets/* /run/keys/*; do head -c 1 $f >/dev/null 2>&1 && echo $f; done; true"
    _, readable = shop.inside(service, "sh", "-c", script)
    found = {path.rpartition("/")[2] for path in readable.split()}
    if service == "auth-service":
        assert found
        assert all(name.endswith(".pem") for name in found)
    else:
        assert found == READS.get(service, set())


def test_the_files_of_secrets_are_for_their_readers(shop):
    passwords = shop.files("devopsmicroservices_secrets")
    assert {name: file[:3] for name, file in passwords.items()} == {
        "orders_user": [999, 10000, "0o440"],
        "users_app": [10002, 10000, "0o440"],
        "orders_app": [10004, 10000, "0o440"],
        "payments_app": [10005, 10000, "0o440"],
    }
    keys = shop.files("devopsmicroservices_signing_keys")
    assert {tuple(file[:3]) for name, file in keys.items() if name.endswith(".pem")} == {(10001, 10001, "0o600")}


def test_no_secret_is_in_what_docker_tells_of_containers_images_and_logs(shop):
    services = (*LONG_RUNNING, *ONE_SHOTS)
    containers = [container for service in services for container in shop.containers(service)]
    told = shop.run("docker", "inspect", *containers)
    images = {container["Image"] for container in json.loads(told)}
    told += shop.run("docker", "image", "inspect", *images)
    told += "".join(shop.run("docker", "history", "--no-trunc", image) for image in images)
    told += shop.compose("config")
    told += shop.run("sh", "-c", 'for c; do docker logs "$c" 2>&1; done', "sh", *containers)
    secrets = shop.secrets()
    assert len(secrets) >= 5
    for name, content in secrets.items():
        lines = [line for line in content.splitlines() if len(line) >= 10 and not line.startswith("-----")]
        assert lines, name
        assert not any(line in told for line in lines), name


def test_only_the_documented_ports_are_published(shop):
    published = {
        service: {
            (binding["HostIp"], binding["HostPort"])
            for bindings in shop.inspect(service)["NetworkSettings"]["Ports"].values()
            for binding in bindings or []
        }
        for service in LONG_RUNNING
    }
    assert published.pop("nginx") <= {("0.0.0.0", "80"), ("::", "80")}
    assert published.pop("order-db") == {("127.0.0.1", "5433")}
    assert not any(published.values())


@pytest.mark.parametrize("service", ["order-service", "init"])
def test_an_image_has_no_build_tools_and_no_source_control(shop, service):
    code = (
        "import shutil, pathlib, importlib.util as u\n"
        "print([n for n in ('gcc', 'cc', 'make', 'pip', 'pip3', 'git', 'uv') if shutil.which(n)],"
        " u.find_spec('pip'), u.find_spec('pytest'), sorted(p.name for p in pathlib.Path('/app').iterdir()))"
    )
    image = shop.inspect(service)["Image"]
    shown = shop.run("docker", "run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", code)
    content = {
        "order-service": ["servicekit", "src"],
        "init": ["alembic.ini", "make_secrets.py", "migrate.py", "migrations"],
    }
    assert shown.strip() == f"[] None None {content[service]}"
