"""The telemetry beside the shop, as data: the embedded backend, the gateway's telemetry, Prometheus."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from local import prometheus
from local.logfile import COUNT_FILE
from local.parts import Part, ending_with_parent
from local.probes import http_ready
from local.rundir import flags_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from local.settings import Settings

BACKEND = "embedded-backend"
CONSOLE = "console"
GATEWAY = "gateway-telemetry"

_PAGES = """
Open http://localhost:{console_port}: place an order there, and see its trace and log lines.
"""

_LOOK = """{traces}
See the order's database row, its trace and its log lines:

  make story ORDER=1

Or ask the APIs of Jaeger, Loki and Prometheus themselves:

  curl 'http://localhost:{jaeger_port}/api/traces?service=order-service&limit=1'
  curl -G http://localhost:{loki_port}/loki/api/v1/query_range --data-urlencode 'query={{service_name="order-service"}}'
  curl -G http://localhost:{prometheus_port}/api/v1/query --data-urlencode 'query=sum by (status) (orders_total)'
"""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")  # the first wins
_OF_ONE_RECEIVER = [
    f"OTEL_EXPORTER_OTLP_{signal}{setting}"
    for signal in ("", "TRACES_")
    for setting in ("HEADERS", "CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY", "PROTOCOL")
]
_HERE = {"localhost", "127.0.0.1", "::1"}

SETTINGS = ["observability.embedded.settings", "observability.gateway.settings", "observability.console.settings"]
"""The modules with the settings of its programs."""


def environment(settings: Settings) -> dict[str, str]:
    """Give what tells a program of the stack where its spans go: nothing where the caller's environment tells it.

    The backend here gets none of the caller's keys and certificates: they are for another.
    """
    if not settings.telemetry or any(os.environ.get(name, "").strip() for name in _ENDPOINTS):
        return {}
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{settings.otlp_port}",
        **dict.fromkeys(_OF_ONE_RECEIVER, ""),
    }


def pages(settings: Settings) -> str:
    """Say first where there is something to see."""
    return _PAGES.format(**vars(settings))


def look(settings: Settings) -> str:
    """Say how to look at the telemetry, and where the traces are if not here."""
    elsewhere = _elsewhere(settings)
    return _LOOK.format(traces=f"\n{elsewhere}\n" if elsewhere else "", **vars(settings))


def _elsewhere(settings: Settings) -> str:
    """Say in a line why no trace comes to the backend here; nothing if they do."""
    here = "Jaeger's API here has none"
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return f"No traces are made, as OTEL_SDK_DISABLED says: {here}."
    exporters = {name.strip().lower() for name in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",")} - {""}
    if exporters and exporters <= {"none", "console"}:
        return f"No traces are sent, as OTEL_TRACES_EXPORTER says: {here}."
    named = {name: value for name in _ENDPOINTS if (value := os.environ.get(name, "").strip())}
    for name, value in named.items():
        with contextlib.suppress(ValueError):  # as the services do, which go on to the next
            url = urlsplit(value)
            host, port = url.hostname, url.port
            if url.scheme in {"http", "https"} and host:
                if host in _HERE and port == settings.otlp_port:
                    return ""
                address = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"  # the rest may hold a key
                return f"Traces go to {address}, as {name} says: {here}."
    return f"No traces are sent, {' and '.join(named)} being no URL with http or https: {here}." if named else ""


def backend(settings: Settings) -> Part:
    """Describe the embedded backend: traces by OTLP, logs from the files of the supervisor."""
    ports = {"OTLP_PORT": settings.otlp_port, "JAEGER_PORT": settings.jaeger_port, "LOKI_PORT": settings.loki_port}
    logs = glob.escape(str(settings.run_dir / "logs"))
    return Part(
        name=BACKEND,
        ports=ports,
        command=lambda: _prepare(settings, "embedded"),
        ready=lambda: next(
            filter(None, (http_ready(f"http://127.0.0.1:{port}/ready") for port in ports.values())), None
        ),
        environment={
            "PYTHONPATH": "services",
            "HOST": "127.0.0.1",
            **{name: str(port) for name, port in ports.items()},
            "EMBEDDED_DATABASE": str(_folder(settings) / "embedded.sqlite"),
            "LOG_FILES": ",".join(f"{logs}/{name}.log" for name in ("*-service", "nginx", GATEWAY)),
            "LOG_LINES_LOST_FILE": str(settings.run_dir / COUNT_FILE),
            "DEPLOYMENT_ENVIRONMENT": "local",
        },
    )


def gateway(settings: Settings, tracing: str) -> Part:
    """Describe what makes the gateway's spans and metrics from its log.

    Args:
        settings: The stack.
        tracing: The gateway's GATEWAY_TRACING.
    """
    port = settings.gateway_telemetry_port
    return Part(
        name=GATEWAY,
        ports={"GATEWAY_TELEMETRY_PORT": port},
        command=lambda: _prepare(settings, "gateway"),
        ready=lambda: http_ready(f"http://127.0.0.1:{port}/healthz"),
        environment={
            **environment(settings),
            "OTEL_SERVICE_NAME": "",  # a caller's one would be the gateway's
            "PYTHONPATH": "services",
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "GATEWAY_TRACING": tracing,
            "GATEWAY_URL": f"http://127.0.0.1:{settings.gateway_port}",
            "ACCESS_LOG_FILE": str(settings.run_dir / "logs" / "nginx.log"),
            "STATE_FILE": str(_folder(settings) / "nginx.position"),
        },
        outlived_by=(BACKEND,),  # its last spans go there
    )


def console(settings: Settings) -> Part:
    """Describe the console: pages of all this."""
    port = settings.console_port
    return Part(
        name=CONSOLE,
        ports={"CONSOLE_PORT": port},
        command=lambda: ending_with_parent("TERM", sys.executable, "-m", "observability.console"),
        ready=lambda: http_ready(f"http://127.0.0.1:{port}/healthz"),
        environment={
            "PYTHONPATH": "services",
            "HOST": "127.0.0.1",
            "CONSOLE_PORT": str(port),
            "GATEWAY_URL": f"http://127.0.0.1:{settings.gateway_port}",
            "JAEGER_URL": f"http://127.0.0.1:{settings.jaeger_port}",
            "LOKI_URL": f"http://127.0.0.1:{settings.loki_port}",
            "PROMETHEUS_URL": f"http://127.0.0.1:{settings.prometheus_port}",
            "PROMETHEUS_PUBLIC_URL": f"http://localhost:{settings.prometheus_port}",
            "FLAGS_FILE": str(flags_file(settings.run_dir)),
            "MALLOC_ARENA_MAX": "1",  # or each of its threads keeps what its largest answer took
        },
    )


def metrics(settings: Settings, targets: Mapping[str, int], after: str) -> Part:
    """Describe Prometheus.

    Args:
        settings: The stack.
        targets: The port of each service's `/metrics`.
        after: The step that must be done before it starts.
    """
    jobs = {
        **targets,
        "nginx": settings.gateway_telemetry_port,
        BACKEND: settings.otlp_port,
        "prometheus": settings.prometheus_port,
    }
    return Part(
        name="prometheus",
        ports={"PROMETHEUS_PORT": settings.prometheus_port},
        command=lambda: prometheus.command(
            prometheus.find(),
            prometheus.render(settings.run_dir / "conf" / "prometheus", jobs),
            settings.run_dir / "prometheus",
            settings.prometheus_port,
        ),
        ready=lambda: http_ready(f"http://127.0.0.1:{settings.prometheus_port}/-/ready"),
        needs=(after,),
        optional=True,
    )


def _prepare(settings: Settings, program: str) -> list[str]:
    _folder(settings).mkdir(mode=0o700, exist_ok=True)
    return ending_with_parent("TERM", sys.executable, "-m", f"observability.{program}")


def _folder(settings: Settings) -> Path:
    return settings.run_dir / "telemetry"
