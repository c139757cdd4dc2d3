"""A stack of `local/` with what a measurement changes about it: `python -P variant.py up|down|reset`.

It runs in the project that is measured, which may be another than this file's (an older commit): it imports `local`
from there and nothing of its own. What it adds is run by that stack's supervisor, so that it is stopped and counted
like every part. The environment says what:

    BENCH_ACCESS_LOG=off        the gateway writes no access log
    BENCH_SINK_PORT=1234        an nginx that answers 200 to whatever comes stands for the backends
    BENCH_GATEWAY_TELEMETRY=on  gateway-telemetry runs without the backends
    BENCH_ORDER_PORTS=1,2       so many more replicas of order-service
    BENCH_BACKENDS=/folder      the Collector, Jaeger and Loki of that folder run, configured as in Compose
    BENCH_BACKEND_PORTS=1,2,..  their ports, in the order of _BACKENDS
    BENCH_TUTORIAL=on           the services are the tutorial's, see tutorial/
    BENCH_STOCK=on              the services are instrumented with zero code, see stock.py
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from local import nginx, observers, stack
from local.cli import main
from local.parts import Part, Stack, Task, ending_with_parent
from local.probes import http_ready
from local.settings import PROJECT

if TYPE_CHECKING:
    from local.settings import Settings

TUTORIAL = Path(__file__).resolve().parent / "tutorial"
STOCK = Path(__file__).resolve().with_name("stock.py")

_ZERO_CODE = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_METRICS_EXPORTER": "none",  # they are scraped, as the shop's
    "OTEL_LOGS_EXPORTER": "none",  # they are read from stdout, as the shop's
    "OTEL_PYTHON_LOG_CORRELATION": "true",
    "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION": "false",
    "OTEL_PYTHON_FLASK_EXCLUDED_URLS": "healthz,readyz,metrics",
    "OTEL_BSP_SCHEDULE_DELAY": "200",  # as in the shop, or a turn would end before its spans are sent
}

_OBSERVABILITY = PROJECT / "observability"
_BACKENDS = {
    "collector": ("OTLP_PORT", "HEALTH_PORT", "FLUENT_PORT", "OTLP_GRPC_PORT", "TELEMETRY_PORT"),
    "jaeger": ("OTLP_PORT", "HEALTH_PORT", "JAEGER_PORT", "JAEGER_GRPC_PORT", "TELEMETRY_PORT"),
    "loki": ("LOKI_PORT", "LOKI_GRPC_PORT"),
}
"""The ports of each, by the variables of its configuration."""

_SINK = """\
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path tmp/body; proxy_temp_path tmp/proxy; fastcgi_temp_path tmp/fastcgi;
    uwsgi_temp_path tmp/uwsgi; scgi_temp_path tmp/scgi;
    log_format sizes "$uri $request_length";
    access_log {access_log} sizes buffer=64k flush=1s;
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    keepalive_timeout 300s;
    server {{
        listen 127.0.0.1:{port};
        default_type application/x-protobuf;
        return 200 "";
    }}
}}
"""


def build(settings: Settings) -> Stack:
    """Describe the stack."""
    plain = stack.build(settings)
    steps: list[Part | Task] = []
    for step in plain.steps:
        if isinstance(step, Part) and step.name == "nginx":
            steps.append(_gateway(settings, step))
        elif isinstance(step, Part) and os.environ.get("BENCH_TUTORIAL") and step.name.endswith("-service"):
            steps.append(_tutorial(step))
        elif isinstance(step, Part) and os.environ.get("BENCH_STOCK") and step.name.endswith("-service"):
            steps.append(_stock(step))
        else:
            steps.append(step)
        if isinstance(step, Part) and step.name == "order-service":
            steps += [_replica(step, number, port) for number, port in enumerate(_order_ports(), 2)]
        if step.name == "order-db":
            steps += _watchers(settings)
    return dataclasses.replace(plain, steps=tuple(steps))


def _order_ports() -> list[int]:
    return [int(port) for port in os.environ.get("BENCH_ORDER_PORTS", "").split(",") if port]


def _watchers(settings: Settings) -> list[Part]:
    parts = []
    if port := os.environ.get("BENCH_SINK_PORT"):
        parts.append(_sink(settings, int(port)))
    if os.environ.get("BENCH_BACKENDS"):
        parts += _backends(settings, Path(os.environ["BENCH_BACKENDS"]))
    if os.environ.get("BENCH_GATEWAY_TELEMETRY"):
        tracing = os.environ.get("GATEWAY_TRACING", nginx.DEFAULTS["GATEWAY_TRACING"])
        parts.append(dataclasses.replace(observers.gateway(settings, tracing), outlived_by=()))
    return parts


def _backends(settings: Settings, binaries: Path) -> list[Part]:
    ports = iter(os.environ["BENCH_BACKEND_PORTS"].split(","))
    of = {part: {name: int(next(ports)) for name in names} for part, names in _BACKENDS.items()}
    jaeger, loki = of["jaeger"], of["loki"]
    commands = {
        "collector": [
            *(str(binaries / "otelcol"), "--feature-gates=transform.flatten.logs"),
            *(f"--config={_OBSERVABILITY / 'collector' / name}" for name in ("config.yaml", "keep-all.yaml")),
        ],
        "jaeger": [str(binaries / "jaeger"), "--config", str(_OBSERVABILITY / "jaeger" / "config.yaml")],
        "loki": [
            str(binaries / "loki"),
            f"-config.file={_OBSERVABILITY / 'loki' / 'config.yaml'}",
            "-config.expand-env=true",
        ],
    }
    ready = {
        "collector": f"http://127.0.0.1:{of['collector']['HEALTH_PORT']}/",
        "jaeger": f"http://127.0.0.1:{jaeger['HEALTH_PORT']}/status",
        "loki": f"http://127.0.0.1:{loki['LOKI_PORT']}/ready",
    }
    nowhere = f"http://127.0.0.1:{settings.prometheus_port}"  # nothing listens there
    environment = {
        "LISTEN_HOST": "127.0.0.1",
        "UI_CONFIG": str(_OBSERVABILITY / "jaeger" / "ui.json"),
        "JAEGER_ENDPOINT": f"http://127.0.0.1:{jaeger['OTLP_PORT']}",
        "LOKI_ENDPOINT": f"http://127.0.0.1:{loki['LOKI_PORT']}/otlp",
        "PROMETHEUS_ENDPOINT": nowhere,
        "GATEWAY_TELEMETRY_ENDPOINT": nowhere,
    }
    parts = []
    for name, command in commands.items():
        folder = settings.run_dir / "backends" / name
        parts.append(
            Part(
                name=name,
                ports={f"{name.upper()}_{variable}": port for variable, port in of[name].items()},
                command=partial(_in, folder, command),
                ready=partial(http_ready, ready[name]),
                environment={
                    **environment,
                    **{variable: str(port) for variable, port in of[name].items()},
                    "DATA_DIRECTORY": str(folder),
                    "QUEUE_DIRECTORY": str(folder),
                },
            )
        )
    return parts


def _in(folder: Path, command: list[str]) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return ending_with_parent("TERM", *command)


def _sink(settings: Settings, port: int) -> Part:
    def command() -> list[str]:
        folder = settings.run_dir / "conf" / "sink"
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        conf = folder / "nginx.conf"
        conf.write_text(_SINK.format(port=port, access_log=folder / "sizes.log"), encoding="utf-8")
        return nginx.command(nginx.find(), conf)

    return Part(
        name="sink",
        ports={"BENCH_SINK_PORT": port},
        command=command,
        ready=lambda: http_ready(f"http://127.0.0.1:{port}/"),
        stop_signal=nginx.STOP_SIGNAL,
    )


def _gateway(settings: Settings, part: Part) -> Part:
    """Change the rendered configuration, which has no variable for this."""

    def command() -> list[str]:
        arguments = part.command()
        folder = settings.run_dir / "conf" / "nginx"
        if os.environ.get("BENCH_ACCESS_LOG") == "off":
            _edit(folder / "gateway.conf", r"access_log \S+ gateway if=\$log_this;", "access_log off;")
        servers = "".join(f" server 127.0.0.1:{port};" for port in _order_ports())
        _edit(folder / "upstreams.conf", r"(upstream order-service +\{ server \S+;)", rf"\1{servers}")
        return arguments

    replicas = tuple(f"order-service-{number}" for number, _ in enumerate(_order_ports(), 2))
    return dataclasses.replace(part, command=command, needs=(*part.needs, *replicas))


def _edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"))
    if count != 1:
        raise RuntimeError(f"{path} has changed: {pattern} was found {count} times")
    path.write_text(text, encoding="utf-8")


def _replica(part: Part, number: int, port: int) -> Part:
    return dataclasses.replace(
        part,
        name=f"{part.name}-{number}",
        ports={f"ORDER_PORT_{number}": port},
        ready=lambda: http_ready(f"http://127.0.0.1:{port}/readyz"),
        environment={**part.environment, "PORT": str(port)},
    )


def _tutorial(part: Part) -> Part:
    program = TUTORIAL / f"{part.name.removesuffix('-service')}.py"
    port = next(iter(part.ports.values()))
    return dataclasses.replace(
        part,
        command=lambda: ending_with_parent("TERM", sys.executable, str(program)),
        ready=lambda: http_ready(f"http://127.0.0.1:{port}/healthz"),
    )


def _stock(part: Part) -> Part:
    """Have gunicorn's arguments as they are, and run it by way of stock.py, instrumented."""

    def command() -> list[str]:
        arguments = part.command()
        python = arguments.index("-m") - 1
        instrument = str(Path(sys.executable).with_name("opentelemetry-instrument"))
        return [*arguments[:python], instrument, arguments[python], "-P", str(STOCK), *arguments[python + 3 :]]

    return dataclasses.replace(
        part, command=command, environment={**part.environment, **_ZERO_CODE, "OTEL_SERVICE_NAME": part.name}
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], build))
