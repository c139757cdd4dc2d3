"""The real stack: PostgreSQL, the five services, the gateway, and their telemetry, as data."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import ChainMap
from typing import TYPE_CHECKING

from local import nginx, observers, postgres, rundir
from local.errors import LocalError, StepError
from local.parts import Part, Stack, Task, ending_with_parent
from local.probes import http_ready, postgres_ready
from local.settings import PROJECT, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OWNER = postgres.SUPERUSER
SERVICES = ("auth", "user", "product", "order", "payment")
ROLES = {"user": "users_app", "order": "orders_app", "payment": "payments_app"}
"""The database role of each service that has one."""
CLIENTS = ("order-service",)
"""The services that get tokens of auth-service for their calls to others; each has a secret."""

_CHECK_SECONDS = 60

_WELCOME = """{pages}
The gateway listens on http://localhost:{port}. Place an order:

{login}  TOKEN=$(curl -s -X POST http://localhost:{port}/auth/login -H "Content-Type: application/json" \\
    -d '{{"username":"{user}","password":"{password}"}}' | cut -d '"' -f 4)
  curl -X POST http://localhost:{port}/orders/ -H "Content-Type: application/json" \\
    -H "Authorization: Bearer $TOKEN" -d '{{"product_id": 1}}'
{look}
  make status                         each process: state, port, pid, memory
  make logs SERVICE=order-service     follow one log; without SERVICE all of them
  make down                           stop; `make reset` deletes the data too"""


_REGISTER = """\
  (The demo login is closed: SEED_DEMO_ADMIN=false. Tokens that it got before count until they expire, for an hour by
  default; `make rotate-keys REVOKE=1` ends them now, and everybody else's.)

  curl -X POST http://localhost:{port}/users/ -H "Content-Type: application/json" \\
    -d '{{"username":"{user}","password":"{password}"}}'
"""
_SEEDED = {
    "seed.completed": "made the demo login",
    "seed.closed": "closed the demo login",
    "seed.reopened": "opened the demo login again",
}
_OFF = {"false", "0", "off", "no", "n", "f"}  # as the services' settings take it


def build(settings: Settings) -> Stack:
    """Describe the stack of some settings; nothing is started or written."""
    services = [_service(settings, name) for name in SERVICES]
    database = Part(
        name="order-db",
        ports={"ORDER_DB_PORT": settings.order_db_port},
        command=lambda: _prepare_database(settings),
        ready=lambda: postgres_ready(settings.order_db_port, OWNER, password_file(settings, OWNER)),
        stop_signal=postgres.STOP_SIGNAL.name.removeprefix("SIG"),
    )
    gateway = Part(
        name="nginx",
        ports={"GATEWAY_PORT": settings.gateway_port},
        command=lambda: _prepare_gateway(settings),
        ready=lambda: (
            http_ready(f"http://127.0.0.1:{settings.gateway_port}/healthz")
            or http_ready(f"http://127.0.0.1:{settings.gateway_port}/products/")
        ),
        stop_signal=nginx.STOP_SIGNAL,
        stop_seconds=nginx.STOP_SECONDS,
        needs=tuple(service.name for service in services),
        outlived_by=(observers.GATEWAY,) if settings.telemetry else (),  # which reads its log
    )
    migrate = Task(
        name="migrations",
        needs=("order-db",),
        run=lambda: _run(
            settings,
            "migrations",
            {**_database_environment(settings, OWNER), "ROLE_PASSWORDS_DIR": str(settings.run_dir / "secrets")},
            "order-db-services/migrate.py",
        ),
    )
    seed = Task(
        name="demo data",
        needs=("migrations",),
        run=lambda: _seed(settings),
    )
    watchers: tuple[Part, ...] = ()
    scraper: tuple[Part, ...] = ()
    pages: tuple[Part, ...] = ()
    if settings.telemetry:
        tracing = gateway_settings(settings).get("GATEWAY_TRACING", nginx.DEFAULTS["GATEWAY_TRACING"])
        watchers = (observers.backend(settings), observers.gateway(settings, tracing))
        targets = {f"{service}-service": _port(settings, service) for service in SERVICES}
        scraper = (observers.metrics(settings, targets, after="migrations"),)
        pages = (observers.console(settings),)
    return Stack(
        # A task holds up what stands after it, so the services are begun before the seed. So does the scraper, which
        # may have to be fetched.
        steps=(database, *watchers, migrate, *services, *scraper, *pages, seed, gateway),
        welcome=_welcome(settings),
        check=lambda: _check(settings, (*watchers, *pages)),
    )


def service_environment(settings: Settings, service: str) -> dict[str, str]:
    """Give what a service's process has in its environment beside the caller's own.

    Args:
        settings: The stack.
        service: The short name: auth, user, product, order or payment.
    """
    environment = {
        "PYTHONPATH": f"services:services/{service}/src",
        "HOST": "127.0.0.1",
        "PORT": str(_port(settings, service)),
        "OTEL_SERVICE_NAME": f"{service}-service",  # a caller's one would be that of all five
        "AUTH_URL": f"http://127.0.0.1:{settings.auth_port}",
        "USER_URL": f"http://127.0.0.1:{settings.user_port}",
        "PRODUCT_URL": f"http://127.0.0.1:{settings.product_port}",
        "PAYMENT_URL": f"http://127.0.0.1:{settings.payment_port}",
        "FLAGS_FILE": str(rundir.flags_file(settings.run_dir)),
        **observers.environment(settings),
    }
    if service in ROLES:
        environment |= _database_environment(settings, ROLES[service])
    if service == "auth":
        environment["AUTH_KEYS_DIR"] = str(settings.run_dir / "keys")
        environment["CLIENT_SECRETS_DIR"] = str(settings.run_dir / "secrets")
    if f"{service}-service" in CLIENTS:
        environment["CLIENT_SECRET_FILE"] = str(settings.run_dir / "secrets" / f"{service}-service")
    return environment


def password_file(settings: Settings, role: str) -> Path:
    """Give the place of a database role's password."""
    return settings.run_dir / "secrets" / role


def _database_environment(settings: Settings, role: str) -> dict[str, str]:
    return {
        "DATABASE_HOST": "127.0.0.1",
        "DATABASE_PORT": str(settings.order_db_port),
        "DATABASE_NAME": OWNER,
        "DATABASE_USER": role,
        "DATABASE_PASSWORD_FILE": str(password_file(settings, role)),
    }


def _welcome(settings: Settings) -> str:
    said = (observers.pages, observers.look)
    pages, look = (say(settings) if settings.telemetry else "" for say in said)
    port, login, user, password = settings.gateway_port, "", "admin", "password"
    if os.environ.get("SEED_DEMO_ADMIN", "").strip().lower() in _OFF:
        user, password = "ada", "a password of your own"
        login = _REGISTER.format(port=port, user=user, password=password)
    return _WELCOME.format(port=port, login=login, user=user, password=password, look=look, pages=pages)


def _seed(settings: Settings) -> str:
    _run(settings, "demo-data", service_environment(settings, "user"), "-m", "user_service.seed")
    log = (settings.run_dir / "logs" / "demo-data.log").read_text(encoding="utf-8", errors="replace")
    last = log.rstrip().rpartition("\n")[2]  # empty where the disk is full
    return next((said for event, said in _SEEDED.items() if f'"event":"{event}"' in last), "done")


def _service(settings: Settings, service: str) -> Part:
    port = _port(settings, service)
    return Part(
        name=f"{service}-service",
        ports={f"{service.upper()}_PORT": port},
        command=lambda: _prepare_service(settings, service),
        ready=lambda: http_ready(f"http://127.0.0.1:{port}/readyz"),
        environment=service_environment(settings, service),
        needs=("migrations",) if service in ROLES else (),
        outlived_by=(observers.BACKEND,) if settings.telemetry else (),  # its last spans go there
        stop_seconds=settings.graceful_timeout_seconds + 10,  # after its requests it ends its background tasks
    )


def _port(settings: Settings, service: str) -> int:
    port: int = getattr(settings, f"{service}_port")
    return port


def _check(settings: Settings, watchers: tuple[Part, ...]) -> None:
    owner = password_file(settings, OWNER)
    if (settings.run_dir / "data" / "PG_VERSION").exists() and not owner.exists():
        raise LocalError(f"The database's password is lost: restore {owner}, or `make reset` to begin with no data.")
    if watchers and "," in str(settings.run_dir):  # it stands in a list of files, separated by commas
        raise LocalError(f"{settings.run_dir} has a comma in it: choose another folder with RUN_DIR.")
    environments: list[dict[str, str]] = [service_environment(settings, service) for service in SERVICES]
    path = ":".join(environment["PYTHONPATH"] for environment in environments)
    environments += [dict(part.environment) for part in watchers]
    environment = {**os.environ, **ChainMap(*environments), "PYTHONPATH": path}
    modules = [f"{service}_service.settings" for service in SERVICES] + (observers.SETTINGS if watchers else [])
    services = [sys.executable, "-m", "local.check", *modules]
    for command in (services, [*_prepare_gateway(settings), "-t", "-q"]):
        try:
            done = subprocess.run(
                command,
                cwd=PROJECT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=_CHECK_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise LocalError(
                f"`{command[0]}` did not check the settings within {_CHECK_SECONDS} s: try again."
            ) from None
        if done.returncode:
            reason = re.search(r"\[emerg\] (?:[\d#]+: )?(.+)", done.stderr)  # nginx says more than that
            said = reason[1] if reason else done.stderr.strip().rpartition("\n")[2]
            raise LocalError(f"A setting is not valid: {said}.")


def _prepare_database(settings: Settings) -> list[str]:
    rundir.make_secrets(settings.run_dir, (OWNER, *ROLES.values(), *CLIENTS))
    data = settings.run_dir / "data"
    init_sql = PROJECT / "order-db-services" / "init" / "01-create-orders.sql"
    postgres.initialise(data, password_file(settings, OWNER), init_sql)
    return postgres.command(data, settings.order_db_port)


def _prepare_gateway(settings: Settings) -> list[str]:
    conf = nginx.render(settings.run_dir / "conf" / "nginx", gateway_settings(settings))
    return nginx.command(nginx.find(), conf)


def gateway_settings(settings: Settings) -> dict[str, str]:
    """Give the gateway's variables: the stack's addresses, and what the caller's environment sets."""
    addresses = {"GATEWAY_LISTEN": f"127.0.0.1:{settings.gateway_port}"}
    for service in SERVICES:
        addresses[f"{service.upper()}_UPSTREAM"] = f"127.0.0.1:{_port(settings, service)}"
    wishes = {name: os.environ[name] for name in nginx.DEFAULTS if os.environ.get(name)}
    return wishes | addresses


def _prepare_service(settings: Settings, service: str) -> list[str]:
    rundir.switch_faults_off(rundir.flags_file(settings.run_dir))
    return ending_with_parent(
        *("TERM", sys.executable, "-m", "gunicorn", "-c", "python:servicekit.process.gunicorn_conf"),
        f"{service}_service.app:create_app()",
    )


def _run(settings: Settings, name: str, environment: Mapping[str, str], *arguments: str) -> str:
    """Run a Python program of the project to its end, its output in a log of its own."""
    log = settings.run_dir / "logs" / f"{name}.log"
    limit = settings.start_timeout_seconds
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                ending_with_parent("TERM", sys.executable, *arguments),
                cwd=PROJECT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            raise StepError(f"{name} did not end within {limit} s (START_TIMEOUT_SECONDS).", log) from None
    if done.returncode:
        raise StepError(f"{name} failed with status {done.returncode}.", log)
    return "done"
