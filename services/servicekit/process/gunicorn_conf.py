"""How gunicorn runs a service: `gunicorn -c python:servicekit.process.gunicorn_conf "parcel_service.app:create_app()"`.

It runs one process with threads, because Prometheus' multiprocess mode would lose exemplars and runtime metrics. For
more throughput, run more replicas in Compose or Kubernetes. docs/processes.md says what to expect with more workers,
after a fork, a reload and a kill.

gunicorn logs lines before the app exists. Their field `service` is OTEL_SERVICE_NAME, or else gunicorn's process name:
that of `--name`, or the application's package.
"""

import gc
import resource
from typing import Any

from gunicorn.glogging import Logger

from servicekit.config import ServerSettings, load
from servicekit.process import apps
from servicekit.process.staying import STAYING_THREADS
from servicekit.process.worker import SPARE_THREADS, STALLED_THREADS, Worker
from servicekit.telemetry import logs


class StructuredLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Sends gunicorn's messages to the standard library's root logger, so that they look like all other log lines."""

    def setup(self, cfg: Any) -> None:
        """Configure logging for master and workers; gunicorn calls this first."""
        logs.configure(cfg.proc_name.partition(":")[0].partition(".")[0].replace("_", "-"), cfg.loglevel)
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS[cfg.loglevel]
        self.error_log.setLevel(self.loglevel)
        self.error_log.propagate = True
        self._access_log_enabled = False  # servicekit.web.app logs requests, because it knows route and trace

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log the message without its arguments, which quote whole requests with their headers."""
        if told := msg.partition("%")[0].strip() if args else msg:
            super().debug("%s", told, **kwargs)


# First of all, so that invalid settings are reported as a log line too.
logs.configure("gunicorn")
logs.capture_output()
_settings = load(ServerSettings)

bind = f"{_settings.host}:{_settings.port}"
backlog = 1024  # connections that may arrive at once; the client of a further one retries after 1 s
workers = 1  # even if WEB_CONCURRENCY, which gunicorn reads, is higher
worker_class = Worker
# A thread for each request that runs or waits for its turn (web.app decides which), and those of the worker.
threads = _settings.threads + _settings.queue_length + SPARE_THREADS + STAYING_THREADS + STALLED_THREADS
worker_connections = threads + 1000  # gunicorn keeps `worker_connections - threads` idle connections
# Each connection needs a file descriptor, and many shells allow 1024.
_most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
if 0 <= _most_files[0] < 2 * worker_connections:  # negative: no limit
    _allowed = min(2 * worker_connections, _most_files[1]) if _most_files[1] >= 0 else 2 * worker_connections
    resource.setrlimit(resource.RLIMIT_NOFILE, (_allowed, _most_files[1]))
worker_tmp_dir = "/dev/shm"  # noqa: S108  # the heartbeat file must not wait for a disk
control_socket_disable = True  # gunicorn would create it under $HOME
keepalive = 75  # longer than callers keep idle connections, so that the callers close them first
sendfile = False  # our time limits do not apply to it, so it would wait forever for a client that does not read
timeout = 30  # for the worker's heartbeat, not for a request
graceful_timeout = _settings.graceful_timeout_seconds
forwarded_allow_ips = ""  # trust no forwarding headers: nothing here needs them
# Higher than the gateway's limits, so that the gateway rejects what is too large.
limit_request_line = 8190
limit_request_fields = 6000
limit_request_field_size = 16380
loglevel = _settings.log_level
logger_class = StructuredLogger


def pre_fork(_server: Any, _worker: Any) -> None:
    """Freeze existing objects before the fork: else garbage collection writes to shared pages, which copies them."""
    gc.freeze()


def post_worker_init(_worker: Any) -> None:
    """Start the apps' background tasks in the worker's process."""
    for task in apps.tasks():
        task.start()
    gc.collect()
    gc.freeze()  # objects created so far stay, so the collector need not scan them


def worker_exit(_server: Any, worker: Any) -> None:
    """Let the background tasks finish their current call, and send the last spans."""
    if getattr(worker, "wsgi", None) is None:  # the app was not loaded
        return
    for task in apps.tasks():
        task.stop()
    for telemetry in apps.telemetries():
        telemetry.shutdown()
