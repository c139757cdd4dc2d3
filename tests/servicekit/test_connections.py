"""Answers as a peer may send them: whole, in pieces, too late, too much, or not at all."""

import base64
import datetime as dt
import gzip
import ipaddress
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from servicekit.calls import connections as kept
from servicekit.calls.connections import (
    MAX_ANSWER,
    AnswerTimeoutError,
    BrokenAnswerError,
    Connections,
    ConnectTimeoutError,
    NameNotResolvedError,
    NoFreeConnectionError,
    NotConnectedError,
    NotTrustedError,
    RawAnswer,
)
from tests.fixtures.database import PROJECT
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


LOOP = "loop"  # answer every request
RESET = "reset"  # end without a word
END = "end"  # say that nothing more will come, and go on listening


def serve(connection, script, seen, over):
    with connection:
        for step in script:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif step is None:
                return
            elif step == "request":
                seen.append(connection.recv(65536))
            elif step == LOOP:
                while request := connection.recv(65536):
                    seen.append(request)
                    connection.sendall(OK)
            elif step == RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            elif step == END:
                connection.shutdown(socket.SHUT_WR)
            else:
                over.wait(step)
        over.wait(10)


class Peer:
    """Serves each connection by the next of some scripts, the last one again and again."""

    def __init__(self, *scripts, host="127.0.0.1", tls=None):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self._listener.settimeout(0.1)
        self._scripts = scripts
        self._tls = tls
        self._over = threading.Event()
        self.port = self._listener.getsockname()[1]
        self.seen = []
        self.connections = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection, script)))
            self._threads[-1].start()

    def _serve(self, connection, script):
        connection.settimeout(10)
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            serve(connection, script, self.seen, self._over)
        except OSError:  # the caller may give up
            connection.close()

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()


@pytest.fixture
def start():
    peers = []

    def run(*scripts, **options):
        peers.append(Peer(*scripts, **options))
        return peers[-1]

    yield run
    for peer in peers:
        peer.stop()


@pytest.fixture
def connect(start):  # closed before the peers end: these wait for their connections
    made = []

    def make(url, **limits):
        limits = {"most": 1, "wait_seconds": 0.1, "connect_seconds": 5, "seconds": 5} | limits
        made.append(Connections(url, **limits))
        return made[-1]

    yield make
    for connections in made:
        connections.close()


@pytest.fixture
def ask(start, connect):
    def one(*script, **limits):
        peer = start(["request", *script])
        return connect(f"http://127.0.0.1:{peer.port}", **limits).request("GET", "/", {})

    return one


HI = RawAnswer(200, b"hi")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK, HI),
        (b"HTTP/1.1 204 No Content\r\n\r\n", RawAnswer(204, b"")),
        (b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", RawAnswer(503, b"")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n6\r\n there\r\n0\r\n\r\n",
            RawAnswer(200, b"hi there"),
        ),
    ],
)
def test_an_answer_is_read_whole_however_it_is_cut(ask, answer, expected):
    assert ask(*[piece for byte in answer for piece in (bytes([byte]), 0.001)]) == expected


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 x\r\nLink: <x>\r\n\r\n"])
@pytest.mark.parametrize("pause", [(), (0.05,)])
def test_an_interim_answer_is_not_the_answer(ask, interim, pause):
    assert ask(interim, *pause, OK) == HI


@pytest.mark.parametrize("pause", [(), (0.05,)])
def test_what_nobody_asked_for_is_not_the_answer_to_the_next_request(start, connect, pause):
    second = b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\nno"
    peer = start(["request", OK, *pause, second], [LOOP])
    connections = connect(f"http://127.0.0.1:{peer.port}")
    assert connections.request("GET", "/", {}) == HI
    time.sleep(0.2)  # what comes unasked has to have come
    assert connections.request("GET", "/", {}) == HI
    assert peer.connections == 2


@pytest.mark.parametrize("script", [[10], [OK[:-2], 0.3, b"h", 0.3, b"i"], [OK[:20], 0.3, OK[20:25], 0.3, OK[25:]]])
def test_an_answer_that_is_late_or_drips_is_given_up_in_time(ask, script):
    started = time.monotonic()
    with pytest.raises(AnswerTimeoutError):
        ask(*script, seconds=0.4)
    assert 0.35 < time.monotonic() - started < 2


@pytest.mark.parametrize(
    "script",
    [
        [None],
        [RESET],
        [OK[:10], None],
        [OK[:-1], None],
        [b"<html>", None],
        [b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n"],
        [b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_ANSWER],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (2 * MAX_ANSWER)],
        [b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 * MAX_ANSWER)],
    ],
    ids=[
        "closed",
        "reset",
        "half a head",
        "half a body",
        "no HTTP",
        "101",
        "two lengths",
        "chunk",
        "head",
        "body",
        "stream",
    ],
)
def test_what_is_no_answer_is_told_from_no_answer_in_time(ask, script):
    with pytest.raises(BrokenAnswerError):
        ask(*script)


def test_an_answer_of_the_largest_size_is_taken_and_its_connection_kept(start, connect):
    peer = start(["request", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MAX_ANSWER + b"x" * MAX_ANSWER, LOOP])
    connections = connect(f"http://127.0.0.1:{peer.port}", seconds=5)
    assert len(connections.request("GET", "/", {}).body) == MAX_ANSWER
    assert connections.request("GET", "/", {}) == HI
    assert peer.connections == 1


def test_nothing_is_unpacked(ask):
    packed = gzip.compress(b"0" * 10_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    assert ask(head % len(packed) + packed) == RawAnswer(200, packed)


def test_nothing_is_sent_where_nobody_listens(connect):
    with pytest.raises(NotConnectedError) as refused:
        connect(f"http://127.0.0.1:{free_port()}").request("GET", "/", {})
    assert type(refused.value) is NotConnectedError


def test_a_name_without_an_address_is_told_from_a_peer_that_is_down(connect):
    with pytest.raises(NameNotResolvedError):
        connect("http://nobody.invalid", seconds=5, connect_seconds=5).request("GET", "/", {})


def test_connecting_has_a_limit_of_its_own(connect):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):  # the queue is full: nobody else is let in
            started = time.monotonic()
            with pytest.raises(ConnectTimeoutError):
                connect(f"http://127.0.0.1:{full.getsockname()[1]}", connect_seconds=0.2, seconds=5).request(
                    "GET", "/", {}
                )
            assert time.monotonic() - started < 1


def test_who_finds_no_free_connection_is_told_soon(start, connect):
    peer = start(["request", 0.5, OK])
    connections = connect(f"http://127.0.0.1:{peer.port}")
    with ThreadPoolExecutor() as pool:
        held = pool.submit(connections.request, "GET", "/", {})
        eventually(lambda: peer.seen)
        with pytest.raises(NoFreeConnectionError):
            connections.request("GET", "/", {})
        assert held.result() == HI


def test_a_connection_whose_request_failed_leaves_room_for_the_next(start, connect):
    peer = start(["request", 5], ["request", RESET], ["request", b"x" * 100], [LOOP])
    connections = connect(f"http://127.0.0.1:{peer.port}", seconds=0.3)
    for error in (AnswerTimeoutError, BrokenAnswerError, BrokenAnswerError):
        with pytest.raises(error):
            connections.request("GET", "/", {})
    assert connections.request("GET", "/", {}) == HI


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_kept_connection_that_the_peer_has_closed_is_not_used_again(start, connect, method):
    peer = start(["request", OK, END, "request"], [LOOP])
    connections = connect(f"http://127.0.0.1:{peer.port}")
    assert connections.request(method, "/", {}, b"{}") == HI
    eventually(lambda: peer.seen[1:] == [b""])  # this side has closed it, too
    assert connections.request(method, "/", {}, b"{}") == HI
    assert peer.connections == 2


def test_a_request_whose_kept_connection_breaks_is_not_sent_again_here(start, connect):
    """It was sent: only the caller knows whether the work may be done twice."""
    peer = start(["request", OK, "request", None], [LOOP])
    connections = connect(f"http://127.0.0.1:{peer.port}")
    assert connections.request("POST", "/", {}, b"{}") == HI
    with pytest.raises(BrokenAnswerError):
        connections.request("POST", "/", {}, b"{}")
    assert (len(peer.seen), peer.connections) == (2, 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_like_any_other(start, connect, status):
    elsewhere = start([LOOP])
    where = f"http://127.0.0.1:{elsewhere.port}/"
    peer = start(["request", f"HTTP/1.1 {status} x\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()])
    assert connect(f"http://127.0.0.1:{peer.port}").request("POST", "/", {}, b"{}") == RawAnswer(status, b"")
    assert elsewhere.connections == 0


@pytest.mark.parametrize("threads", [16, 300])
def test_many_threads_share_few_connections(start, connect, threads):
    peer = start([LOOP])
    connections = connect(f"http://127.0.0.1:{peer.port}", most=4, wait_seconds=20, seconds=20)
    with ThreadPoolExecutor(threads) as pool:
        assert set(pool.map(lambda _: connections.request("GET", "/", {}), range(1000))) == {HI}
    assert peer.connections <= 8


def test_connections_are_made_anew_now_and_then_so_that_a_new_replica_gets_work(start, connect, monkeypatch):
    peer = start(["request", OK, "request", OK, "request"], ["request", 0.5, OK], [LOOP])
    connections = connect(f"http://127.0.0.1:{peer.port}")
    assert [connections.request("GET", "/", {}) for _ in range(2)] == [HI, HI]
    assert peer.connections == 1
    monkeypatch.setattr(kept, "_MOST_SECONDS", -1)
    with ThreadPoolExecutor() as pool:
        held = pool.submit(connections.request, "GET", "/", {})
        eventually(lambda: peer.connections == 2)
        assert connections.request("GET", "/", {}) == HI
        assert (held.result(), peer.connections) == (HI, 3)  # what was under way is not broken off
    eventually(lambda: b"" in peer.seen)  # the first one is closed


def test_closing_ends_the_requests_under_way(start, connect):
    peer = start(["request", 5], [LOOP])
    connections = connect(f"http://127.0.0.1:{peer.port}", seconds=20)
    with ThreadPoolExecutor() as pool:
        held = pool.submit(connections.request, "GET", "/", {})
        eventually(lambda: peer.seen)
        connections.close()
        with pytest.raises(BrokenAnswerError):
            held.result(timeout=5)
    assert connections.request("GET", "/", {}) == HI


def test_closing_closes_the_connections(start, connect):
    peer = start(["request", OK, "request", None])
    connections = connect(f"http://127.0.0.1:{peer.port}")
    connections.request("GET", "/", {})
    connections.close()
    eventually(lambda: peer.seen[1:] == [b""])


@pytest.mark.parametrize("headers", [{"x": "1\r\nGET / HTTP/1.1"}, {"x\n": "1"}])
def test_a_line_break_begins_no_second_request(connect, headers):
    with pytest.raises(ValueError, match="header"):
        connect("http://127.0.0.1:1").request("GET", "/", headers)


def test_a_body_and_who_asks_are_sent_and_nothing_else(start, connect):
    peer = start([LOOP])
    connect(f"http://me:p%40ss@127.0.0.1:{peer.port}/").request("POST", "/x?y=1", {"A": "b", "Accept": "c"}, b"{}")
    head, _, body = peer.seen[0].partition(b"\r\n\r\n")
    agent = next(line for line in head.split(b"\r\n") if line.startswith(b"User-Agent: "))
    assert set(head.split(b"\r\n")) == {
        b"POST /x?y=1 HTTP/1.1",
        f"Host: 127.0.0.1:{peer.port}".encode(),
        b"A: b",
        b"Accept: c",
        agent,
        b"Content-Length: 2",
        b"Authorization: Basic " + base64.b64encode(b"me:p@ss"),
    }
    assert body == b"{}"


def test_a_cookie_is_not_sent_back(start, connect):
    peer = start(["request", b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n", LOOP])
    connections = connect(f"http://127.0.0.1:{peer.port}")
    for _ in range(2):
        connections.request("GET", "/", {})
    assert b"ookie" not in peer.seen[1]


def test_the_environments_proxy_is_not_asked(ask, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert ask(OK) == HI


def test_a_peer_may_have_an_address_of_ipv6(start, connect):
    peer = start([LOOP], host="::1")
    connections = connect(f"http://[::1]:{peer.port}")
    assert connections.request("GET", "/", {}) == HI
    assert (connections.host, connections.port) == ("::1", peer.port)
    assert f"Host: [::1]:{peer.port}".encode() in peer.seen[0]


def certificate(folder):
    """A certificate for localhost that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def secure(tmp_path, start, monkeypatch):
    trusted, key = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(trusted, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    return start([LOOP], tls=tls)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_peer_with_a_trusted_certificate_is_asked_by_tls(secure, connect, host):
    asked = connect(f"https://{host}:{secure.port}", seconds=5, connect_seconds=5)  # TLS takes a busy machine long
    assert asked.request("GET", "/", {}) == HI


def test_a_peer_whose_certificate_is_not_trusted_is_sent_nothing(secure, connect, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(NotTrustedError):
        connect(f"https://localhost:{secure.port}", seconds=5, connect_seconds=5).request("GET", "/", {})
    assert secure.seen == []


def test_a_machine_without_certificates_trusts_nobody_and_speaks_http(ask, secure, connect, monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    with pytest.raises(NotTrustedError):
        connect(f"https://localhost:{secure.port}").request("GET", "/", {})
    assert ask(OK) == HI


def run(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "services")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


FORKS = """
import os, signal, sys
from servicekit.calls.connections import Connections

connections = Connections(sys.argv[1], most=1, wait_seconds=1, connect_seconds=1, seconds=2)
if sys.argv[2] == "after a request":
    connections.request("GET", "/", {})
child = os.fork()
if child == 0:
    signal.alarm(10)
    try:
        print(connections.request("GET", "/", {}).body.decode(), flush=True)
    except RuntimeError:
        print("refused", flush=True)
    connections.close()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print(connections.request("GET", "/", {}).body.decode())
"""


@pytest.mark.parametrize(("forks", "child"), [("before a request", "hi"), ("after a request", "refused")])
def test_a_fork_is_harmless_before_the_first_request_and_hangs_in_no_case(start, forks, child):
    peer = start([LOOP])
    with run(FORKS, f"http://127.0.0.1:{peer.port}", forks) as process:
        assert process.communicate(timeout=30)[0].split() == [child, "hi"]
    assert process.returncode == 0


INTERRUPTED = """
import sys
from servicekit.calls.connections import Connections

connections = Connections(sys.argv[1], most=1, wait_seconds=1, connect_seconds=1, seconds=2)
try:
    connections.request("GET", "/", {})
except KeyboardInterrupt:
    print(connections.request("GET", "/", {}).body.decode())
"""


def test_ctrl_c_is_heard_when_the_time_for_an_answer_is_over_at_the_latest(start):
    peer = start(["request", 20], [LOOP])
    started = time.monotonic()
    with run(INTERRUPTED, f"http://127.0.0.1:{peer.port}") as process:
        eventually(lambda: peer.seen)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0].split() == ["hi"]
    assert time.monotonic() - started < 10


ENDS = """
import sys, threading
from servicekit.calls.connections import Connections

connections = Connections(sys.argv[1], most=1, wait_seconds=1, connect_seconds=20, seconds=20)
threading.Thread(target=connections.request, args=("GET", "/", {}), daemon=True).start()
input()
"""


def test_a_request_under_way_in_a_daemon_thread_does_not_hold_up_the_end_of_a_process(start):
    peer = start(["request", 20])
    with run(ENDS, f"http://127.0.0.1:{peer.port}") as process:
        eventually(lambda: peer.seen)
        process.communicate("\n", timeout=10)
    assert process.returncode == 0
