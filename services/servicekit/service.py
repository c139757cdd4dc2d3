"""`Service`: creates and connects the metrics, tracing, logger and all other parts of a service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from servicekit.config import LogSettings, ServiceSettings, load
from servicekit.process.background import Periodic
from servicekit.telemetry import logs
from servicekit.telemetry.environment import measures
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.setup import Telemetry
from servicekit.web import app as web

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from flask import Blueprint, Flask
    from spectree import SpecTree

    from servicekit.calls.client import Credential, ServiceClient
    from servicekit.config import ClientSettings, DatabaseSettings, TokenSettings, VerifierSettings
    from servicekit.database.pool import Database
    from servicekit.flags import Flags, FlagSettings
    from servicekit.identity.auth import Authenticator, Callers, JwksClient, KeySource
    from servicekit.identity.credentials import ServiceTokens
    from servicekit.web.errors import ErrorTable


@dataclass(frozen=True)
class Authority:
    """The service that signs an application's tokens.

    Attributes:
        name: Its name.
        keys_path: The path of its public keys, a JWK Set (RFC 7517).
        tokens_path: The path at which services get tokens for their calls to each other.
        login: How a user gets a token, such as `get one from POST /login`: the end of the text of a 401.
    """

    name: str
    keys_path: str = "/.well-known/jwks.json"
    tokens_path: str = "/token"
    login: str = ""


@dataclass(frozen=True)
class Application:
    """What all services of an application have in common.

    Attributes:
        name: Its name, which appears in error types, `urn:<name>:problem:...` (RFC 9457), and in the realm of 401
            answers.
        resource: Resource attributes that all its services have; OTEL_RESOURCE_ATTRIBUTES adds others.
        span_attributes: The attributes of spans that may leave a process, even if something else has set up tracing;
            see `Privacy`. None: all except those that are known to be personal.
        authority: The service that signs its tokens; None if it has no tokens.
    """

    name: str
    resource: Mapping[str, str] = field(default_factory=dict)
    span_attributes: Collection[str] | None = None
    authority: Authority | None = None


class Service:
    """A service. Create one, then its parts (`database`, `client`, ...), then its app with `app`.

    If you have a Flask app already, give it to `instrument` instead. The first Service of a process sets up logging and
    tracing, and its name is in all log lines and spans of the process.

    Args:
        name: The service's name, such as `parcel-service`.
        settings: Limits on concurrent and waiting requests; None reads them from the environment.
        application: The application that it belongs to; None makes one with the service's name.

    Attributes:
        name: As given.
        metrics: Its metrics; register your own in `metrics.registry`.
        tracer: Makes spans for your own steps.
        log: Writes your own log events.
    """

    def __init__(
        self, name: str, settings: ServiceSettings | None = None, application: Application | None = None
    ) -> None:
        _log_as(name)  # first, so that invalid settings are reported as a log line too
        self.name = name
        self._settings = settings or load(ServiceSettings)
        self._application = application or Application(name)
        self.metrics = Metrics(enabled=measures())
        self._telemetry = Telemetry(
            name,
            self.metrics.registry,
            resource=self._application.resource,
            attributes=self._application.span_attributes,
        )
        self.tracer = self._telemetry.tracer
        self.log = logs.get_logger()
        self._ready_checks: list[Callable[[], None]] = []
        self._tasks: list[Periodic] = []

    def instrument(self, app: Flask) -> None:
        """Make an existing Flask app observable.

        The app gets spans, metrics, a log line for each request, `/healthz`, `/readyz` and `/metrics`. Its other
        answers are not changed.

        Args:
            app: The app. Call this before it has hooks of its own, so that they run inside the request's span.
        """
        web.instrument(
            app,
            self.name,
            self.metrics,
            self._telemetry,
            application=self._application.name,
            ready_checks=self._ready_checks,
            tasks=self._tasks,
        )

    def api(self, description: str) -> SpecTree:
        """Create the object whose `validate` decorates views, for validation and the OpenAPI document.

        Args:
            description: What the service does, for the OpenAPI document.
        """
        from servicekit.web.openapi import create_api

        return create_api(self.name, description)

    def app(self, api: SpecTree, blueprint: Blueprint, *, prefix: str, errors: ErrorTable | None = None) -> Flask:
        """Create an app: observable as by `instrument`, with problem+json, a bounded queue, a check of `Host`, OpenAPI.

        Args:
            api: Validates the routes; see `api`.
            blueprint: The routes.
            prefix: The first part of their paths, such as `parcels`: `/parcels/openapi.json` describes them.
            errors: The service's own exceptions and their HTTP statuses.

        Returns:
            The app. Errors are answered as problem+json (RFC 9457).
        """
        from servicekit.web.openapi import document_blueprint

        return web.make_app(
            self.name,
            self._settings,
            self.metrics,
            self._telemetry,
            application=self._application.name,
            blueprints=[blueprint, document_blueprint(api, prefix)],
            error_table=errors or {},
            ready_checks=self._ready_checks,
            tasks=self._tasks,
        )

    def every(self, seconds: float, name: str, work: Callable[[Callable[[], bool]], None]) -> None:
        """Add a background task, which runs if gunicorn is started with `gunicorn_conf`; see `Periodic`.

        Args:
            seconds: The pause between two runs.
            name: Its name in log lines.
            work: The work; it gets a function that says whether the process is about to stop.
        """
        self._tasks.append(Periodic(name, seconds, work))

    def ready_when(self, check: Callable[[], None]) -> None:
        """Add a check to `/readyz`, which answers 503 while the check raises DependencyUnavailable."""
        self._ready_checks.append(check)

    def database(self, settings: DatabaseSettings, peer: str, *, statistics: bool = False) -> Database:
        """Create the service's pool of database connections, and add the database to `/readyz`.

        Args:
            settings: Address, role, and limits of the pool.
            peer: The database's name in spans, metrics and errors.
            statistics: Whether to export PostgreSQL's own statistics as metrics, too.
        """
        from servicekit.database.pool import Database
        from servicekit.database.statistics import Statistics

        database = Database(settings, self.name, self.metrics, self.tracer, peer=peer)
        self.ready_when(database.ping)
        if statistics:
            self._tasks.append(Statistics(database, self.metrics.registry).task())
        return database

    def flags(self, settings: FlagSettings, about: Mapping[str, str] | None = None) -> Flags:
        """Create the service's feature flags.

        Args:
            settings: The file of flags, in flagd's format.
            about: What is always part of the evaluation context; see `Flags`.
        """
        from servicekit.flags import Flags

        return Flags(settings.flags_file, self.metrics.registry, f"{self.name}-{id(self):x}", about)

    def client(
        self,
        peer: str,
        base_url: str,
        *,
        timeout_seconds: float,
        connections: int = 32,
        credential: Credential | None = None,
    ) -> ServiceClient:
        """Create a client for another service; see `ServiceClient`.

        Args:
            peer: The other service's name in spans, metrics and errors.
            base_url: Its root URL.
            timeout_seconds: How long a call may take.
            connections: The most connections at the same time.
            credential: Gives the token for each call; None calls without one.
        """
        from servicekit.calls.client import ServiceClient

        return ServiceClient(
            peer,
            base_url,
            self.metrics,
            self.tracer,
            timeout_seconds=timeout_seconds,
            connections=connections,
            credential=credential,
        )

    def keys(self, settings: VerifierSettings) -> JwksClient:
        """Create the source of the authority's public keys, with a background task that keeps them fresh.

        Args:
            settings: The authority's URL, and for how many seconds keys are used while it does not answer.

        Raises:
            ValueError: The application has no authority.
        """
        from servicekit.identity.auth import JwksClient

        authority = self._authority()
        client = self.client(authority.name, settings.auth_url, timeout_seconds=2.0, connections=4)
        keys = JwksClient(client, kept_seconds=settings.keys_kept_seconds, path=authority.keys_path)
        self._tasks.append(keys.task())
        return keys

    def authenticator(self, keys: KeySource, settings: TokenSettings) -> Authenticator:
        """Create the object that verifies users' tokens.

        Args:
            keys: The public keys; see `keys`.
            settings: The issuer and audience that a token must have.

        Raises:
            ValueError: The application has no authority.
        """
        from servicekit.identity.auth import Authenticator

        return Authenticator(keys, settings, self._authority().login)

    def callers(self, keys: KeySource, settings: TokenSettings) -> Callers:
        """Create the object that verifies the tokens of other services that call this one.

        Args:
            keys: The public keys; see `keys`.
            settings: The issuer that a token must have. Its audience must be this service.
        """
        from servicekit.identity.auth import Callers

        return Callers(keys, settings, self.name)

    def tokens(self, audience: str, auth_url: str, settings: ClientSettings) -> ServiceTokens:
        """Create the source of this service's tokens for calls to another, with a task that keeps them fresh.

        Args:
            audience: The name of the service that is called.
            auth_url: The authority's URL.
            settings: The file with this service's secret.

        Raises:
            ValueError: The application has no authority.
        """
        from servicekit.identity.credentials import ServiceTokens

        authority = self._authority()
        client = self.client(authority.name, auth_url, timeout_seconds=2.0, connections=2)
        tokens = ServiceTokens(client, self.name, settings.client_secret_file, audience, path=authority.tokens_path)
        self._tasks.append(tokens.task())
        return tokens

    def _authority(self) -> Authority:
        if self._application.authority is None:
            raise ValueError(f"{self._application.name} has no authority: nobody signs its tokens.")
        return self._application.authority


def _log_as(service: str) -> None:
    if not structlog.is_configured():  # `gunicorn_conf`, or your own code, may have done it before
        logs.configure(service, load(LogSettings).log_level)
    logs.name_app(service)
