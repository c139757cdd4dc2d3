"""Backends that demand something, and processes that send to them: for test_environment.py and test_exporter.py."""

import datetime as dt
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import zlib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fixtures.otlp import Collector, decode
from tests.fixtures.services import sample

PROJECT = Path(__file__).parents[2]


class Backend(Collector):
    """A collector that can be a hosted one.

    Attributes:
        path: If set, all others are not found.
        key: If set, an `api-key` that each request has to have.
        paths: Where requests went.
        batches: How many spans came in each request.
    """

    def __init__(self, port=0, tls=None):
        self.path = self.key = None
        self.paths = []
        self.batches = []
        self._raw = []
        super().__init__(port)
        if tls is not None:
            accept = self._server.get_request

            def accept_tls():
                connection, address = accept()
                connection.settimeout(5)
                return tls.wrap_socket(connection, server_side=True), address

            self._server.get_request = accept_tls
            self.endpoint = f"https://127.0.0.1:{self.port}"

    def _take(self, request, body):
        self.paths.append(request.path)
        if self.key is not None and request.headers["api-key"] != self.key:
            request.answer(401)
        elif self.path is not None and request.path != self.path:
            request.answer(404)
        else:
            plain = zlib.decompress(body) if request.headers["Content-Encoding"] == "deflate" else body
            self.batches.append(len(decode(plain)))
            for of_resource in ExportTraceServiceRequest.FromString(plain).resource_spans:
                self._raw.extend(span for of_scope in of_resource.scope_spans for span in of_scope.spans)
            super()._take(request, plain)

    def headers_by_lower_name(self):
        """Those of the first request."""
        return {name.lower(): value for name, value in self.headers[0].items()}

    def raw(self, name):
        """The one span of this name, as OTLP has it."""
        self.one(name)
        (found,) = [span for span in self._raw if span.name == name]
        return found


class Authority:
    """Makes certificates: `ca`, `server`, `server_key`, `client` and `client_key` are files."""

    def __init__(self, folder, name):
        self._folder = folder / name
        self._folder.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.ca, _ = self._write("ca", self._key, self._name)
        self.server, self.server_key = self._write("server", ec.generate_private_key(ec.SECP256R1()))
        self.client, self.client_key = self._write("client", ec.generate_private_key(ec.SECP256R1()))

    def _write(self, what, key, name=None):
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name or x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, what)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name is not None, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        files = self._folder / f"{what}.pem", self._folder / f"{what}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def tls(self, *, client=False):
        """What a server needs; `client` to demand a certificate of the client too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.server_key)
        if client:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Told:
    """What a process of `telling` said, and what its backend got."""

    def __init__(self, output, backend):
        self.output = output
        self.backend = backend
        self.events = [json.loads(line) for line in output.splitlines() if line.startswith('{"timestamp"')]
        self.printed = [json.loads(line) for line in output.splitlines() if line.startswith('{"name"')]

    def named(self, event):
        return [line for line in self.events if line["event"] == event]

    @property
    def ignored(self):
        """The variables that it warned of."""
        return [line["variable"] for line in self.named("telemetry.setting_ignored")]

    @property
    def handed_on(self):
        return [line["handed_on"] for line in self.named("test.answered")]

    @property
    def inner(self):
        return self.backend.one("inner")

    def metric(self, name, **labels):
        return sample(self.named("test.counted")[0]["metrics"], name, **labels)


def tell(backend, environment, requests=({},), *, pause=0.0, level="info", path=(), allowed=None):
    """Run `telling` in a process of its own, with nothing of OpenTelemetry in its environment but this."""
    request = json.dumps([level, list(requests), pause, allowed])
    return Told(run_python(["-m", "tests.servicekit.telling", request], environment, path), backend)


def run_python(what, environment, path=()):
    """Run Python with these arguments, or with this code, and return all that it wrote."""
    ran = subprocess.run(
        [sys.executable, *(["-c", what] if isinstance(what, str) else what)],
        cwd=PROJECT,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "PYTHONPATH": os.pathsep.join(map(str, (PROJECT / "services", *path))),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    output = ran.stdout.decode()
    assert ran.returncode == 0, output
    return output
