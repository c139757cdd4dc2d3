"""Run the console: `PYTHONPATH=services python -m observability.console`. Its settings come from the environment."""

import signal
import sys
from types import FrameType

from waitress import create_server

from observability.console.app import create_app
from observability.console.settings import ConsoleSettings
from servicekit.config import ConfigError, load
from servicekit.telemetry import logs

SERVICE = "console"
_MAX_BODY = 64 * 1024  # what is larger is not even read
_THREADS = 4  # few readers, and memory for the answers that each page asks for


def main() -> int:
    """Serve until SIGTERM; return the exit status."""
    logs.configure(SERVICE)
    try:
        settings = load(ConsoleSettings)
        logs.configure(SERVICE, settings.log_level)
        server = create_server(
            create_app(settings),
            host=settings.host,
            port=settings.console_port,
            threads=_THREADS,
            ident=None,
            max_request_body_size=_MAX_BODY,
        )
    except (ConfigError, OSError) as error:
        logs.get_logger().error("start.failed", reason=str(error))
        return 1
    signal.signal(signal.SIGTERM, _stop)
    logs.get_logger().info("console.started", console_port=settings.console_port)
    server.run()
    return 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit  # waitress ends its threads and its loop


if __name__ == "__main__":
    sys.exit(main())
