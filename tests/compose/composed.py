"""The shop in Docker Compose, driven as a person would: commands in a terminal, requests to the published ports."""

import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import psycopg2
import requests

from tests.fixtures.services import Client, eventually

PROJECT = Path(__file__).parents[2]
SERVICES = ("auth-service", "user-service", "product-service", "order-service", "payment-service")
LONG_RUNNING = (*SERVICES, "nginx", "order-db")
ONE_SHOTS = ("init", "migrate", "seed")
BACKENDS = ("collector", "gateway-telemetry", "jaeger", "loki", "prometheus", "alertmanager", "grafana", "console")
LIGHT = ("collector", "gateway-telemetry", "embedded-backend", "prometheus", "console")
OVERLAY = (*BACKENDS, "prepare")
LOAD = ("loadtest", "loadtest-worker")  # of the profile `load`
SHIPPED = (*SERVICES, "nginx", "gateway-telemetry")  # whose lines the Collector gets
SHOP_FILE = "docker-compose.yml"
BOTH_FILES = f"{SHOP_FILE}:docker-compose.observability.yml"
LIGHT_FILES = f"{SHOP_FILE}:docker-compose.light.yml"
EMBEDDED_FILE = "docker-compose.embedded.yml"  # puts the embedded backend in Loki's place
COMPOSE_LOKI = "COMPOSE_LOKI"
"""The variable that says which Loki to run, `real` or `embedded`; without it the real one, if it can be had."""

# So that `docker compose` means what COMPOSE says, whoever types it.
SHIM = """\
#!/bin/sh
PATH=${PATH#*:}
[ "$1" = compose ] || exec docker "$@"
shift
exec $COMPOSE "$@"
"""


class ComposedShop:
    """A clone of this project as it is now, and the stack that runs from it.

    A clone, because a fresh one has to do, because tests change it, and because a person's `.env` or `secrets/` must
    not decide what is tested.

    Attributes:
        loki: `real`, or `embedded` where the embedded backend stands in for it.
        why: Why that one.
        all_files: COMPOSE_FILE for the stack with telemetry.
    """

    def __init__(self, folder):
        self.clone = folder / "clone"
        files = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], PROJECT, os.environ, 30)
        for name in files.split("\0"):
            if name and (PROJECT / name).is_file():
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, self.clone / name)
        tools = folder / "bin"
        tools.mkdir()
        (tools / "docker").write_text(SHIM)
        (tools / "docker").chmod(0o755)
        program, *arguments = shlex.split(os.environ.get("COMPOSE") or "docker compose")
        if "/" in program:
            program = str((PROJECT / program).resolve())
        files = [PROJECT / name for name in (*BOTH_FILES.split(":"), *LIGHT_FILES.split(":"))]
        settings = {name for file in files for name in re.findall(r"(?<!\$)\$\{(\w+)", file.read_text())}
        settings |= {"COMPOSE_FILE", "COMPOSE_PROJECT_NAME"}
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in settings},
            "PATH": f"{tools}:{os.environ['PATH']}",
            "COMPOSE": shlex.join([program, *arguments]),
            "TERM": "dumb",
        }
        self.gateway = Client("http://localhost")
        self.long_running = LONG_RUNNING
        self.loki, self.why = self._which_loki()
        self.all_files = BOTH_FILES if self.loki == "real" else f"{BOTH_FILES}:{EMBEDDED_FILE}"

    def _which_loki(self):
        """Which Loki to run, and why."""
        if chosen := os.environ.get(COMPOSE_LOKI):
            assert chosen in {"real", "embedded"}, f"{COMPOSE_LOKI} is neither real nor embedded: {chosen}"
            return chosen, f"{COMPOSE_LOKI}={chosen}"
        (image,) = re.findall(r"image: (grafana/loki:\S+)", (PROJECT / BOTH_FILES.split(":")[1]).read_text())
        told = ""
        for command in (("image", "inspect"), ("pull", "--quiet")):
            done = _finish(["docker", *command, image], self.clone, self._environment, 300)
            if done.returncode == 0:
                return "real", f"{image} is here"
            told = done.stderr.strip().rpartition("\n")[2]
        return "embedded", f"{image} cannot be had: {told}"

    def settings(self, **environment):
        """Set environment variables for all commands from now on."""
        self._environment |= environment

    def down(self):
        """Delete all of it but images, also what an earlier run left of the overlay."""
        for files in (LIGHT_FILES, self.all_files):  # each has volumes of its own
            every_part = {"COMPOSE_FILE": files, "COMPOSE_PROFILES": "load"}
            self.compose("down", "--volumes", "--remove-orphans", seconds=120, **every_part)

    def keep(self, folder):
        """Write into files how the containers are, and what each said; of ended ones too."""
        (folder / "ps.txt").write_text(self.compose("ps", "--all", COMPOSE_PROFILES="load"))
        services = self.compose("ps", "--all", "--format", "{{.Service}}", COMPOSE_PROFILES="load").split()
        for service in sorted(set(services)):
            said = self.compose("logs", "--no-log-prefix", "--timestamps", service, COMPOSE_PROFILES="load")
            (folder / f"{service}.log").write_text(said)

    def run(self, *command, seconds=60, **environment):
        """Run a command in the clone; what it printed to stdout. Fails with all that it printed."""
        return _run(command, self.clone, self._environment | environment, seconds)

    def fail(self, *command, seconds=60, **environment):
        """Run a command that has to fail; what it printed to stderr."""
        done = _finish(command, self.clone, self._environment | environment, seconds)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def compose(self, *arguments, seconds=60, **environment):
        return self.run("docker", "compose", *arguments, seconds=seconds, **environment)

    def typed(self, script, keys=(), seconds=60):
        """Run a script in a terminal; type each key line when the prompt of psql is there. What the terminal showed."""
        terminal, inner = pty.openpty()
        termios.tcsetwinsize(inner, (200, 200))  # no pager
        process = subprocess.Popen(
            ["bash", "-ec", script],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=self.clone,
            env=self._environment,
            start_new_session=True,
        )
        os.close(inner)
        shown, waiting, deadline = b"", list(keys), time.monotonic() + seconds
        seen = 0
        with suppress(OSError):  # how Linux says that nobody holds the terminal any more
            while time.monotonic() < deadline:
                if not select.select([terminal], [], [], 0.2)[0]:
                    continue
                read = os.read(terminal, 65536)
                if not read:
                    break
                shown += read
                if waiting and shown.find(b"=# ", seen) >= 0:
                    seen = len(shown)
                    os.write(terminal, waiting.pop(0).encode() + b"\n")
        os.close(terminal)
        text = shown.decode().replace("\r\n", "\n")
        try:
            status = process.wait(max(deadline - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"not done within {seconds} s: {script}\n{text}") from None
        assert status == 0, f"status {status}: {script}\n{text}"
        return text

    def containers(self, service):
        """The ids of a service's containers, ended ones too."""
        labels = {"project": "devopsmicroservices", "service": service, "oneoff": "False"}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        found = self.run("docker", "ps", "--all", "--quiet", "--no-trunc", *filters).split()
        assert found, f"{service} has no container"
        return found

    def inspect(self, service):
        """What the engine knows of a service's first container."""
        return json.loads(self.run("docker", "inspect", self.containers(service)[0]))[0]

    def inside(self, service, *command, user=None):
        """Run a command in a service's container: (its status, what it printed)."""
        options = [] if user is None else ["--user", str(user)]
        done = _finish(
            ["docker", "exec", *options, self.containers(service)[0], *command], self.clone, self._environment, 30
        )
        return done.returncode, done.stdout + done.stderr

    def root(self, code, *arguments, options=()):
        """Run Python code as root in a container of its own, of one of our images; what it printed."""
        command = ["docker", "run", "--rm", "--user", "0", "--entrypoint", "python", *options]
        return self.run(*command, "devopsmicroservices-init", "-c", code, *arguments)

    def files(self, volume):
        """The files of a volume: name -> (uid, gid, mode, content)."""
        code = (
            "import json, os\n"
            "print(json.dumps({e.name: (e.stat().st_uid, e.stat().st_gid, oct(e.stat().st_mode & 0o777),"
            " open(e).read()) for e in os.scandir('/volume') if not e.name.startswith('.')}))"
        )
        return json.loads(self.root(code, options=["--volume", f"{volume}:/volume:ro"]))

    def secrets(self):
        """Every secret of the stack, by name."""
        volumes = ("devopsmicroservices_secrets", "devopsmicroservices_signing_keys")
        return {name: file[3] for volume in volumes for name, file in self.files(volume).items() if file[3].strip()}

    def kill(self, service):
        """Kill a container's first process, and with it all others, from outside, as the kernel does without memory.

        `docker kill` will not do: the engine takes it for a wish of the person, and does not start the container again.
        """
        pid = self.inspect(service)["State"]["Pid"]
        self.root("import os, sys; os.kill(int(sys.argv[1]), 9)", str(pid), options=["--pid", "host"])
        eventually(lambda: self.inspect(service)["State"]["Pid"] not in {0, pid}, 30, pause=0.2)

    def unhealthy(self):
        """The long-running containers that are not healthy, and how they are."""
        containers = [container for service in self.long_running for container in self.containers(service)]
        shown = self.run(
            "docker", "inspect", "--format", "{{.Name}} {{.State.Status}} {{json .State.Health}}", *containers
        )
        return [line for line in shown.splitlines() if not re.search(r' running (null|\{"Status":"healthy")', line)]

    def wait_until_ready(self, seconds=60):
        """Wait until every long-running container is healthy."""
        eventually(lambda: not self.unhealthy(), seconds, pause=0.3)

    def login(self):
        answer = self.gateway.post("/auth/login", {"username": "admin", "password": "password"})
        assert answer.status_code == 200, answer.text
        return answer.json()["token"]

    def order(self, token):
        """Place an order that has to be paid; its id."""
        status, order = self.placed(token)
        assert (status, order["status"]) == (201, "PAID"), order
        return order["id"]

    def placed(self, token):
        """What an order is answered with, whatever becomes of it: (status, body)."""
        answer = self.gateway.post("/orders/", {"product_id": 1}, token)
        return answer.status_code, answer.json()

    def query(self, statement):
        """Ask the order database as its owner, through the published port."""
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=5433,
            dbname="orders_user",
            user="orders_user",
            password=self.run("docker", "exec", "order-db", "cat", "/run/secrets/orders_user").strip(),
            connect_timeout=5,
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()
        finally:
            connection.close()

    def health_checks(self, *chosen):
        """Run tests/health against the stack, or what pytest's arguments choose of it; what pytest printed."""
        command = (sys.executable, "-m", "pytest", "-q", "tests/health", *chosen)
        return self.run(*command, seconds=120, HEALTH_COMPOSE="docker compose")


class WithTelemetry:
    """The same stack with telemetry: what `shop` can do, and what the backends know.

    Attributes:
        started_after: Seconds that `up` took.
    """

    jaeger_url = "http://localhost:16686"
    loki_url = "http://localhost:3100"
    prometheus_url = "http://localhost:9090"

    def __init__(self, shop, files, parts, **settings):
        self._shop = shop
        shop.settings(COMPOSE_FILE=files, **settings)
        shop.long_running = (*LONG_RUNNING, *parts)
        began = time.monotonic()
        shop.compose("up", "-d", "--build", "--wait", seconds=400)
        self.started_after = time.monotonic() - began
        self._session = requests.Session()

    def __getattr__(self, name):
        return getattr(self._shop, name)

    def close(self):
        self._session.close()

    def ask(self, url, **parameters):
        """What a backend answers, from JSON; None if it has nothing or is not there."""
        try:
            answer = self._session.get(url, params=parameters, timeout=10)
        except requests.ConnectionError:
            return None
        return answer.json() if answer.ok else None

    def trace(self, trace_id):
        """The trace as Jaeger shows it, or None."""
        found = self.ask(f"{self.jaeger_url}/api/traces/{trace_id}")
        return found["data"][0] if found and found["data"] else None

    def lines(self, query, since_seconds=600):
        """What a query for log lines finds: [(labels, [[nanoseconds, line], ...])]."""
        start = time.time_ns() - since_seconds * 10**9
        found = self.ask(f"{self.loki_url}/loki/api/v1/query_range", query=query, start=start, limit=1000)
        return [(stream["stream"], stream["values"]) for stream in found["data"]["result"]] if found else []

    def metric(self, query):
        """What a PromQL query gives now: [(labels, number)]."""
        found = self.ask(f"{self.prometheus_url}/api/v1/query", query=query)
        return [(one["metric"], float(one["value"][1])) for one in found["data"]["result"]] if found else []

    def place_order(self, token):
        """Place an order that has to be paid: (its id, its trace's id)."""
        answer = self.gateway.post("/orders/", {"product_id": 1}, token)
        assert (answer.status_code, answer.json()["status"]) == (201, "PAID"), answer.text
        return answer.json()["id"], answer.headers["traceresponse"].split("-")[1]


class LightShop(WithTelemetry):
    """The stack with docker-compose.light.yml: local mode in containers."""

    console_url = "http://localhost:3000"

    def __init__(self, shop):
        super().__init__(shop, LIGHT_FILES, LIGHT)

    def end(self):
        """Leave the shop's data, and no metric of what is not there without this overlay."""
        self.compose("down", seconds=120)
        self.run("docker", "volume", "rm", "devopsmicroservices_prometheus_data")
        self._shop.settings(COMPOSE_FILE=SHOP_FILE)
        self._shop.long_running = LONG_RUNNING


class ObservedShop(WithTelemetry):
    """The stack with docker-compose.observability.yml."""

    grafana_url = "http://localhost:3000"
    console_url = "http://localhost:3001"

    def __init__(self, shop):
        # Any nginx can do `log`; `module` needs the official image.
        super().__init__(shop, shop.all_files, BACKENDS, GATEWAY_TRACING=os.environ.get("GATEWAY_TRACING", "log"))

    def logs(self):
        """What `docker compose logs` shows, by service; of ended containers too."""
        services = (*LONG_RUNNING, *ONE_SHOTS, "prepare", *BACKENDS)
        return {service: self._shop.compose("logs", "--no-log-prefix", service) for service in services}


def _finish(command, folder, environment, seconds):
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        printed = (error.stdout or b"") + (error.stderr or b"")
        raise AssertionError(
            f"not done within {seconds} s: {shlex.join(command)}\n{printed.decode()[-3000:]}"
        ) from None


def _run(command, folder, environment, seconds):
    done = _finish(command, folder, environment, seconds)
    assert done.returncode == 0, (
        f"status {done.returncode}: {shlex.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    )
    return done.stdout
