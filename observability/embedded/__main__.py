"""Run the embedded backend: `PYTHONPATH=services python -m observability.embedded`.

Its settings come from the environment; `--help` lists them.
"""

import argparse
import signal
import sys

from observability.embedded.app import Backend, PortInUse
from observability.embedded.database import Unusable
from observability.embedded.settings import BackendSettings
from servicekit.config import ConfigError, load
from servicekit.telemetry import logs

SERVICE = "embedded-backend"


def main() -> int:
    """Serve until SIGTERM; return the exit status."""
    _parser().parse_args()
    logs.configure(SERVICE)
    logs.capture_output()
    try:
        settings = load(BackendSettings)
        logs.configure(SERVICE, settings.log_level)
        backend = Backend(settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: backend.stop())
        backend.run()
    except (ConfigError, PortInUse, Unusable) as error:
        logs.get_logger().error("start.failed", reason=str(error))
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"{SERVICE}: {error}\n")  # for who starts it by hand
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    """Describe the settings, for `--help`."""
    lines = [
        f"  {name.upper():<24}{field.description} Default: {field.default!s}."
        for name, field in BackendSettings.model_fields.items()
    ]
    return argparse.ArgumentParser(
        prog="python -m observability.embedded",
        description="Take traces and logs by OTLP/HTTP, and answer as Jaeger and Loki do, from one SQLite file.",
        epilog="Environment variables:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


if __name__ == "__main__":
    sys.exit(main())
