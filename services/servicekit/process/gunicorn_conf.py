"""How gunicorn runs a service: `gunicorn -c python:servicekit.process.gunicorn_conf "parcel_service.app:create_app()"`.

One process with threads: Prometheus' multiprocess mode would lose exemplars and runtime metrics. More throughput
comes from more replicas, which is what Compose and Kubernetes scale. docs/processes.md says what holds with more
workers, after a fork, a reload and a kill.

gunicorn's own lines, which come before the app, are named by OTEL_SERVICE_NAME; without it by gunicorn's name of the
process, which is the application's package or what `--name` says.
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
    """gunicorn's own messages, through the standard library's root logger, in the form of all others."""

    def setup(self, cfg: Any) -> None:
        """Configure logging for master and workers; gunicorn calls this first of all."""
        logs.configure(cfg.proc_name.partition(":")[0].partition(".")[0].replace("_", "-"), cfg.loglevel)
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS[cfg.loglevel]
        self.error_log.setLevel(self.loglevel)
        self.error_log.propagate = True
        self._access_log_enabled = False  # servicekit.web.app writes the access line: it knows route and trace

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log what happened and not to what: the arguments quote requests, headers and all."""
        if told := msg.partition("%")[0].strip() if args else msg:
            super().debug("%s", told, **kwargs)


# Before all else: what is wrong with the settings is a log line too.
logs.configure("gunicorn")
logs.capture_output()
_settings = load(ServerSettings)

bind = f"{_settings.host}:{_settings.port}"
backlog = 1024  # as many as may come at once: one that finds no room here is not refused but tries again after a second
workers = 1  # also where WEB_CONCURRENCY, which gunicorn would take, says more
worker_class = Worker
# A thread for each request that works or waits for its turn (web.app decides which), and those of the worker.
threads = _settings.threads + _settings.queue_length + SPARE_THREADS + STAYING_THREADS + STALLED_THREADS
worker_connections = threads + 1000  # what is more than threads is how many idle ones gunicorn keeps
# Each has a file descriptor, and many a shell allows 1024.
_most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
if 0 <= _most_files[0] < 2 * worker_connections:  # negative: no limit
    _allowed = min(2 * worker_connections, _most_files[1]) if _most_files[1] >= 0 else 2 * worker_connections
    resource.setrlimit(resource.RLIMIT_NOFILE, (_allowed, _most_files[1]))
worker_tmp_dir = "/dev/shm"  # noqa: S108  # the heartbeat file must not wait for a disk
control_socket_disable = True  # it would be written under $HOME
keepalive = 75  # longer than the callers' idle connections live, so that they close first
timeout = 30  # of the worker's heartbeat, not of a request
graceful_timeout = _settings.graceful_timeout_seconds
forwarded_allow_ips = ""  # nothing here depends on who the client says it is
# Above what the gateway lets through, so that the gateway says what is too much.
limit_request_line = 8190
limit_request_fields = 6000
limit_request_field_size = 16380
loglevel = _settings.log_level
logger_class = StructuredLogger


def pre_fork(_server: Any, _worker: Any) -> None:
    """Keep the collector off what a worker shares with its master: what it looks at it writes to, and so copies."""
    gc.freeze()


def post_worker_init(_worker: Any) -> None:
    """Start the apps' background tasks, in the process that serves."""
    for task in apps.tasks():
        task.start()
    gc.collect()
    gc.freeze()  # what is there by now stays: the collector need not look at it again and again


def worker_exit(_server: Any, worker: Any) -> None:
    """Let the background tasks finish their round, and send the last spans."""
    if getattr(worker, "wsgi", None) is None:  # nothing came up
        return
    for task in apps.tasks():
        task.stop()
    for telemetry in apps.telemetries():
        telemetry.shutdown()
