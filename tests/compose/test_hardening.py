"""Who breaks into a container finds little: no root, nothing to write to, no capability, no other service's secret."""

import json
import re

import pytest

from tests.compose.composed import BACKENDS, LONG_RUNNING, ONE_SHOTS, OVERLAY

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

UIDS = {
    "order-db": 999,
    "nginx": 101,
    "auth-service": 10001,
    "user-service": 10002,
    "product-service": 10003,
    "order-service": 10004,
    "payment-service": 10005,
    "gateway-telemetry": 10006,
    "collector": 10001,
    "jaeger": 10001,
    "loki": 10001,
    "prometheus": 65534,
    "alertmanager": 65534,
    "grafana": 472,
    "console": 10010,
}
GIDS = UIDS | {"grafana": 0}  # as its image wants it; the group root has no rights of its own
READS = {
    "order-db": {"orders_user"},
    "user-service": {"users_app"},
    "order-service": {"orders_app", "order-service"},
    "payment-service": {"payments_app"},
}
PREPARING = {"init", "prepare"}
each_container = pytest.mark.parametrize("service", [*LONG_RUNNING, *BACKENDS])
every_container = pytest.mark.parametrize("service", [*LONG_RUNNING, *ONE_SHOTS, *OVERLAY])
with_a_shell = pytest.mark.parametrize(
    "service", [*LONG_RUNNING, "gateway-telemetry", "jaeger", "prometheus", "alertmanager", "grafana", "console"]
)


@every_container
def test_it_has_the_limits_and_no_rights(stack, service):
    host = stack.inspect(service)["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert sorted(host["CapAdd"] or []) == (["CAP_CHOWN", "CAP_DAC_OVERRIDE"] if service in PREPARING else [])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Privileged"] is False
    assert 0 < host["Memory"] <= (1024 if service == "grafana" else 512) * 2**20
    assert 0 < host["PidsLimit"] <= 512
    log = host["LogConfig"]
    assert log["Type"] == ("fluentd" if service == "gateway-telemetry" else "json-file")
    limits = {"cache-max-size", "cache-max-file"} if log["Type"] == "fluentd" else {"max-size", "max-file"}
    assert limits <= set(log["Config"])
    assert not any("docker.sock" in bind for bind in host["Binds"] or [])


@each_container
def test_it_comes_back_and_says_how_it_is(stack, service):
    container = stack.inspect(service)
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    if service == "collector":  # its image has nothing that could ask
        return
    assert container["Config"]["Healthcheck"]["Test"][0] == "CMD"  # not CMD-SHELL: no shell is needed
    assert container["State"]["Health"]["Status"] == "healthy"


@pytest.mark.parametrize("service", [*ONE_SHOTS, "prepare"])
def test_a_one_shot_runs_once_and_only_what_prepares_volumes_is_root(stack, service):
    container = stack.inspect(service)
    assert container["HostConfig"]["RestartPolicy"]["Name"] in {"", "no"}
    assert (container["Config"]["User"] == "0:0") == (service in PREPARING)
    assert (container["HostConfig"]["NetworkMode"] == "none") == (service in PREPARING)
    assert container["Config"]["User"], "an image's default may change"


@each_container
def test_no_process_in_it_is_root_or_could_become_it(stack, service):
    uid, gid = UIDS[service], GIDS[service]
    assert stack.inspect(service)["Config"]["User"] == f"{uid}:{gid}"
    pids = stack.run("docker", "top", stack.containers(service)[0], "-o", "pid").split()[1:]
    # From outside: not each image has a shell. A process may have ended since.
    code = (
        "import sys, pathlib\n"
        "for pid in sys.argv[1:]:\n"
        "    try: print(pathlib.Path(f'/proc/{pid}/status').read_text())\n"
        "    except FileNotFoundError: pass"
    )
    status = stack.root(code, *pids, options=["--pid", "host"])
    found = re.findall(r"^(Uid|Gid|Groups|CapEff|CapPrm|CapBnd|NoNewPrivs):\s*(.*?)\s*$", status, re.MULTILINE)
    assert len(found) >= 2 * 7, status  # init, and what it started
    expected = {"Uid": "\t".join([str(uid)] * 4), "Gid": "\t".join([str(gid)] * 4), "NoNewPrivs": "1"}
    for name, value in found:
        if name == "Groups":
            assert set(value.split()) <= {str(gid)}
        else:
            assert value == expected.get(name, "0" * 16), name


@with_a_shell
@pytest.mark.parametrize("user", [None, 0], ids=["itself", "root"])
def test_its_root_file_system_cannot_be_written_to(stack, service, user):
    for path in ("/probe", "/etc/probe", "/bin/probe"):
        status, message = stack.inside(service, "touch", path, user=user)
        assert status != 0
        assert user is None or "Read-only file system" in message, message


@with_a_shell
def test_it_reads_no_other_containers_password(stack, service):
    script = "for f in /run/secrets/* /run/keys/*; do head -c 1 $f >/dev/null 2>&1 && echo $f; done; true"
    _, readable = stack.inside(service, "sh", "-c", script)
    found = {path.rpartition("/")[2] for path in readable.split()}
    if service == "auth-service":
        assert "order-service" in found  # what it compares with what order-service shows
        assert any(name.endswith(".pem") for name in found)
        assert all(name.endswith((".pem", ".revoked")) for name in found - {"order-service"})
    else:
        assert found == READS.get(service, set())


def test_the_files_of_secrets_are_for_their_readers(shop):
    passwords = shop.files("devopsmicroservices_secrets")
    assert {name: file[:3] for name, file in passwords.items()} == {
        "orders_user": [999, 10000, "0o440"],
        "users_app": [10002, 10000, "0o440"],
        "orders_app": [10004, 10000, "0o440"],
        "payments_app": [10005, 10000, "0o440"],
        "order-service": [10004, 10001, "0o440"],
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
    assert len(secrets) >= 6
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
        "order-service": ["servicekit", "shop", "src"],
        "init": ["alembic.ini", "make_secrets.py", "migrate.py", "migrations"],
    }
    assert shown.strip() == f"[] None None {content[service]}"
