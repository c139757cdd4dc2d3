"""How gunicorn runs a service: `gunicorn -c python:servicekit.gunicorn_conf "order_service.app:create_app()"`.

One process with threads: Prometheus' multiprocess mode would lose exemplars and runtime metrics. More throughput
comes from more replicas, which is what Compose and Kubernetes scale.

Without the application's name on the command line, as in the images, `SERVICE=order` names it.
"""

import gc
import os
import select
import sys
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from servicekit import logs
from servicekit.config import ServerSettings, load


class StructuredLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own messages, through the standard library's root logger, in the form of all others."""

    def setup(self, cfg: Any) -> None:
        """Configure logging for master and workers; gunicorn calls this first of all."""
        logs.configure(_service(), cfg.loglevel)
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS[cfg.loglevel]
        self.error_log.setLevel(self.loglevel)
        self.error_log.propagate = True
        self._access_log_enabled = False  # servicekit.app writes the access line: it knows route and trace

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a warning, of an invalid request without its text: what was sent may hold a token."""
        super().warning(msg.partition(" from ip=")[0], *args, **kwargs)

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log what happened and not to what: the arguments quote requests, headers and all."""
        if told := msg.partition("%")[0].strip() if args else msg:
            super().debug("%s", told, **kwargs)

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log an exception, without the arguments, which are the request's method and URI."""
        super().exception("Error handling request" if args else msg, **kwargs)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker with threads, with two differences.

    Told to stop, it refuses new connections at once and serves all that it has. gunicorn's own leaves its socket open
    until it ends. Connections that came meanwhile would be accepted by the kernel, never served, and reset: for a
    gateway in front that is a request that may have had an effect, so it can send it to no other replica. A refused
    connection it can.

    A thread stays with its connection between two requests. gunicorn's own hands it back to the main thread, which
    waits for the next request and finds a thread for it: for each request two more threads to wake, which quarrel about
    the interpreter's lock. Whoever calls here keeps few connections and uses them all the time.
    """

    def init_process(self) -> None:
        """Start; gunicorn calls this in the worker's process."""
        self._stopping = os.eventfd(0)
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop: who waits for a next request stops waiting."""
        super().handle_exit(sig, frame)
        os.eventfd_write(self._stopping, 1)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End at once: the process waits for its threads, and these for no next request."""
        os.eventfd_write(self._stopping, 1)
        super().handle_quit(sig, frame)

    def handle(self, conn: Any) -> Any:
        """Serve a connection, in a thread of the pool; see gunicorn's for what comes back."""
        while True:
            kept = super().handle(conn)
            # With more connections than that, the main thread waits for requests on all of them at once.
            if kept is not True or self.nr_conns > _STAYING_THREADS:
                return kept
            if not conn.parser.unreader.buf.getvalue() and not self._next_request(conn):
                return self.alive is False  # when stopping, the main thread ends it; idle for too long, it is closed

    def _next_request(self, conn: Any) -> bool:
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        poll.register(self._stopping, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(self.cfg.keepalive * 1000)}
        return bool(ready) and self._stopping not in ready

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001  # the signature is gunicorn's
        """Start or stop accepting connections; when stopping for good, take in the queue and close it."""
        super().set_accept_enabled(enabled)
        if self.alive:
            return
        for listener in self.sockets:
            waiting = self.nr_conns - 1
            while self.nr_conns != waiting:
                waiting = self.nr_conns
                self.accept(listener)
            listener.close()


def _service() -> str:
    """Name the service: by the application, `order_service.app:create_app()`, or by the environment."""
    application = next((argument for argument in sys.argv[1:] if ":create_app" in argument), None)
    package = application.partition(".")[0] if application else f"{os.environ.get('SERVICE', 'unknown')}_service"
    return package.replace("_", "-")


# Before all else: what is wrong with the settings is a log line too.
logs.configure(_service())
logs.capture_output()
_settings = load(ServerSettings)

if "SERVICE" in os.environ:
    wsgi_app = f"{os.environ['SERVICE']}_service.app:create_app()"

bind = f"{_settings.host}:{_settings.port}"
backlog = 128  # connections that wait for a thread; more is refused, and soon, rather than served too late
workers = 1
worker_class = Worker
# A thread for each request that works or waits for its turn (servicekit.app decides which), and some for the probes.
# Those that stay with an idle connection come on top, or there would be none left to do the work of others.
_SPARE_THREADS = 4
_STAYING_THREADS = 100
threads = _settings.threads + _settings.queue_length + _SPARE_THREADS + _STAYING_THREADS
worker_connections = threads + 1000  # what is more than threads is how many idle ones gunicorn keeps
worker_tmp_dir = "/dev/shm"  # noqa: S108  # the heartbeat file must not wait for a disk
control_socket_disable = True  # it would be written under $HOME
keepalive = 75  # longer than the callers' idle connections live, so that they close first
timeout = 30  # of the worker's heartbeat, not of a request
graceful_timeout = _settings.graceful_timeout_seconds
forwarded_allow_ips = ""  # nothing here depends on who the client says it is
# Above what the gateway lets through, so that what is too much gets its problem+json and not gunicorn's HTML.
limit_request_line = 8190
limit_request_fields = 6000
limit_request_field_size = 16380
loglevel = _settings.log_level
logger_class = StructuredLogger


def post_worker_init(worker: Any) -> None:
    """Start the app's background tasks, in the process that serves."""
    for task in worker.wsgi.extensions["tasks"]:
        task.start()
    gc.collect()
    gc.freeze()  # what is there by now stays: the collector need not look at it again and again


def worker_exit(_server: Any, worker: Any) -> None:
    """Let the background tasks finish their round, and send the last spans."""
    wsgi = getattr(worker, "wsgi", None)  # missing when the app never came up
    if wsgi is None:
        return
    for task in wsgi.extensions["tasks"]:
        task.stop()
    wsgi.extensions["telemetry"].shutdown()
