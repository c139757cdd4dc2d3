"""What a service is made of: its metrics, its tracing, its logger, and what is made with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from servicekit.config import ServerSettings, ServiceSettings, load
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
    from servicekit.identity.auth import Authenticator, Callers, JwksClient, KeySource
    from servicekit.identity.credentials import ServiceTokens
    from servicekit.web.errors import ErrorTable


@dataclass(frozen=True)
class Authority:
    """The service that signs an application's tokens.

    Attributes:
        name: Its name.
        keys_path: Where it publishes its keys (a JWK Set).
        tokens_path: Where services get tokens of their own.
        login: How to get a token, such as `get one from POST /login`: it ends the text of a 401.
    """

    name: str
    keys_path: str = "/.well-known/jwks.json"
    tokens_path: str = "/token"
    login: str = ""


@dataclass(frozen=True)
class Application:
    """What all services of an application have in common.

    Attributes:
        name: In the types of its problems, `urn:<name>:problem:...`, and the realm of its challenges.
        resource: Attributes of every service's resource; OTEL_RESOURCE_ATTRIBUTES has others where they differ.
        span_attributes: The attributes of spans that may leave a process, whoever has set up tracing; see `Privacy`.
            None: all but those that are known to be personal.
        authority: What signs its tokens, if it has any.
    """

    name: str
    resource: Mapping[str, str] = field(default_factory=dict)
    span_attributes: Collection[str] | None = None
    authority: Authority | None = None


class Service:
    """A service: make one, make its parts with it, and then its app; or give it an app that you have.

    The first one sets up the process's logging and tracing, and names its log lines and spans.

    Args:
        name: Its name, such as `parcel-service`.
        settings: How much it takes on at once; read from the environment if not given.
        application: What it is a part of; by default, an application of its own name.

    Attributes:
        name: As given.
        metrics: Its metrics; `metrics.registry` is where its own are registered.
        tracer: Makes spans of its own work.
        log: Writes its own events.
    """

    def __init__(
        self, name: str, settings: ServiceSettings | None = None, application: Application | None = None
    ) -> None:
        _log_as(name)  # before all else: what is wrong with the settings is a log line too
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
        """Have an app of your own tell what it does; call it first, before the app has hooks.

        The app gets spans, metrics, an access line for each request, `/healthz`, `/readyz` and `/metrics`. What it
        answers otherwise stays its own business.
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
        """Make the object whose `validate` decorates the views of `app`."""
        from servicekit.web.openapi import create_api

        return create_api(self.name, description)

    def app(self, api: SpecTree, blueprint: Blueprint, *, prefix: str, errors: ErrorTable | None = None) -> Flask:
        """Make an app as this kit wants one: `instrument`, and problem+json, bounded queues, trusted hosts, OpenAPI.

        Args:
            api: What validates the routes.
            blueprint: The routes.
            prefix: Where they are, such as `parcels`: `/parcels/openapi.json` describes them.
            errors: The service's own errors and their statuses.
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
        """Do something again and again beside the requests, where `gunicorn_conf` runs the service; see `Periodic`."""
        self._tasks.append(Periodic(name, seconds, work))

    def ready_when(self, check: Callable[[], None]) -> None:
        """Be ready only while this raises no DependencyUnavailable."""
        self._ready_checks.append(check)

    def database(self, settings: DatabaseSettings, peer: str, *, statistics: bool = False) -> Database:
        """Make the service's database, without which it is not ready.

        Args:
            settings: Where it is.
            peer: What it is called.
            statistics: Whether to ask PostgreSQL for its own numbers, too.
        """
        from servicekit.database.pool import Database
        from servicekit.database.statistics import Statistics

        database = Database(settings, self.name, self.metrics, self.tracer, peer=peer)
        self.ready_when(database.ping)
        if statistics:
            self._tasks.append(Statistics(database, self.metrics.registry).task())
        return database

    def client(
        self,
        peer: str,
        base_url: str,
        *,
        timeout_seconds: float,
        connections: int = 32,
        credential: Credential | None = None,
    ) -> ServiceClient:
        """Make a client of another service; see `ServiceClient`."""
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
        """Make the source of the authority's keys, and keep them fresh."""
        from servicekit.identity.auth import JwksClient

        authority = self._authority()
        client = self.client(authority.name, settings.auth_url, timeout_seconds=2.0, connections=4)
        keys = JwksClient(client, kept_seconds=settings.keys_kept_seconds, path=authority.keys_path)
        self._tasks.append(keys.task())
        return keys

    def authenticator(self, keys: KeySource, settings: TokenSettings) -> Authenticator:
        """Make what verifies users' tokens."""
        from servicekit.identity.auth import Authenticator

        return Authenticator(keys, settings, self._authority().login)

    def callers(self, keys: KeySource, settings: TokenSettings) -> Callers:
        """Make what verifies the tokens of other services that call this one."""
        from servicekit.identity.auth import Callers

        return Callers(keys, settings, self.name)

    def tokens(self, audience: str, auth_url: str, settings: ClientSettings) -> ServiceTokens:
        """Make this service's own tokens for calls to another, the audience, and keep them fresh."""
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
    if not structlog.is_configured():  # by `gunicorn_conf`, which is there before the app, or by yourself
        logs.configure(service, load(ServerSettings).log_level)
    logs.name_app(service)
