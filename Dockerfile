# Every image that is built here, a stage for each:
#   docker build --target service --build-arg SERVICE=order .
#   docker build --target gateway-telemetry .      also: embedded-backend, console, migrations, loadtest
# A stage that is not asked for is not built, and what two images begin with alike is built and stored once.

FROM python:3.13.15-slim-trixie AS base
# Who breaks in finds no installer.
RUN pip uninstall --yes --quiet --root-user-action ignore pip
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app

# --- the packages, compiled here, since nothing can be written where they run ---------------------------------------

FROM python:3.13.15-slim-trixie AS installer
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_PYTHON=/opt/venv/bin/python \
    PIP_REQUIRE_HASHES=1
RUN python -m venv --without-pip /opt/venv

FROM installer AS service-packages
COPY requirements/services.txt /
RUN --mount=type=cache,target=/root/.cache/pip pip install -r /services.txt

FROM installer AS embedded-packages
COPY requirements/embedded.txt /
RUN --mount=type=cache,target=/root/.cache/pip pip install -r /embedded.txt

FROM installer AS console-packages
COPY requirements/console.txt /
RUN --mount=type=cache,target=/root/.cache/pip pip install -r /console.txt

FROM installer AS migrations-packages
COPY requirements/migrations.txt /
RUN --mount=type=cache,target=/root/.cache/pip pip install -r /migrations.txt

FROM installer AS loadtest-packages
COPY requirements/load.txt /
RUN --mount=type=cache,target=/root/.cache/pip pip install -r /load.txt

# --- the one-shots before the services: the passwords (make_secrets.py) and the migrations (migrate.py) --------------

FROM base AS migrations
COPY --from=migrations-packages /opt/venv /opt/venv
COPY order-db-services/alembic.ini order-db-services/migrate.py order-db-services/make_secrets.py ./
COPY order-db-services/migrations migrations
LABEL org.opencontainers.image.title="migrations" \
      org.opencontainers.image.description="Passwords and migrations of the shop's order database" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65534:65534
# It runs to its end: its exit status says all.
HEALTHCHECK NONE
ENTRYPOINT ["python"]
CMD ["migrate.py"]

# --- the load test, and its workers ----------------------------------------------------------------------------------

FROM base AS loadtest
# A new volume for the results gets the owner of this folder.
RUN install -d -o 10007 -g 10000 /results
COPY --from=loadtest-packages /opt/venv /opt/venv
COPY services/servicekit/process/healthcheck.py .
COPY local local
COPY loadtest loadtest
RUN python -m compileall -q healthcheck.py local loadtest
LABEL org.opencontainers.image.title="loadtest" \
      org.opencontainers.image.description="Load on the shop, and a look into its books" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10007:10000
# Its metrics answer while it makes load. Before that it looks at the shop, afterwards at the books: up to a minute.
HEALTHCHECK --interval=10s --timeout=3s --retries=6 --start-period=60s --start-interval=1s \
    CMD ["python", "-S", "-m", "healthcheck", "9646", "/metrics"]
CMD ["python", "-m", "loadtest"]

# --- takes and keeps traces and logs, and answers as Jaeger and Loki do ----------------------------------------------

FROM base AS embedded-backend
# A new volume for the data gets the owner of this folder.
RUN install -d -o 10009 -g 10009 /data
COPY --from=embedded-packages /opt/venv /opt/venv
COPY services/servicekit servicekit
COPY services/shop shop
COPY observability/receiving observability/receiving
COPY observability/embedded observability/embedded
RUN python -m compileall -q servicekit shop observability
LABEL org.opencontainers.image.title="embedded-backend" \
      org.opencontainers.image.description="Traces and logs in one SQLite file, behind the APIs of Jaeger and Loki" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV HOST=0.0.0.0 \
    EMBEDDED_DATABASE=/data/embedded.sqlite
USER 10009:10009
# All three ports are served by one loop.
HEALTHCHECK --interval=10s --timeout=3s --retries=3 --start-period=30s --start-interval=1s \
    CMD ["python", "-S", "-m", "servicekit.process.healthcheck", "3100", "/ready"]
CMD ["python", "-m", "observability.embedded"]

# --- pages of all this: orders, traces, log lines and metrics ---------------------------------------------------------

FROM base AS console
COPY --from=console-packages /opt/venv /opt/venv
COPY services/servicekit servicekit
COPY local local
COPY scenarios scenarios
COPY observability/story observability/story
COPY observability/why observability/why
COPY observability/console observability/console
COPY observability/grafana/dashboards observability/grafana/dashboards
COPY docs/runbooks docs/runbooks
COPY docs/try.md docs/promises.md docs/
RUN python -m compileall -q servicekit local scenarios observability
LABEL org.opencontainers.image.title="console" \
      org.opencontainers.image.description="Pages of the shop to observe: an order with its trace and its log lines" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV HOST=0.0.0.0
USER 10010:10010
HEALTHCHECK --interval=10s --timeout=3s --retries=3 --start-period=30s --start-interval=1s \
    CMD ["python", "-S", "-m", "servicekit.process.healthcheck", "3000", "/healthz"]
CMD ["python", "-m", "observability.console"]

# --- what the services and the gateway's telemetry have in common ----------------------------------------------------

FROM base AS shared
COPY --from=service-packages /opt/venv /opt/venv
COPY services/servicekit servicekit
COPY services/shop shop
RUN python -m compileall -q servicekit shop
# Alive, not ready: if this asked for the database, a database outage would make three more containers unhealthy, and
# `docker compose up` refuses to go on past an unhealthy one. Readiness is /readyz.
HEALTHCHECK --interval=10s --timeout=3s --retries=3 --start-period=30s --start-interval=1s \
    CMD ["python", "-S", "-m", "servicekit.process.healthcheck"]

# --- makes the gateway's metrics and spans of its log ----------------------------------------------------------------

FROM shared AS gateway-telemetry
COPY nginx/gateway/routes.conf nginx/gateway/routes.conf
COPY observability/receiving observability/receiving
COPY observability/gateway observability/gateway
RUN python -m compileall -q observability
LABEL org.opencontainers.image.title="gateway-telemetry" \
      org.opencontainers.image.description="Metrics and spans of the shop's gateway, from its access log" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PORT=9145
USER 10006:10006
CMD ["python", "-m", "observability.gateway"]

# --- the five services: SERVICE says which ---------------------------------------------------------------------------

FROM shared AS service
ARG SERVICE
ENV SERVICE=$SERVICE \
    OTEL_SERVICE_NAME=$SERVICE-service \
    PYTHONPATH=/app:/app/src
COPY services/$SERVICE/src src
RUN python -m compileall -q src
LABEL org.opencontainers.image.title="$SERVICE-service" \
      org.opencontainers.image.description="A service of the shop to observe" \
      org.opencontainers.image.licenses="Apache-2.0"
# Any uid will do; Compose gives each service its own.
USER 65534:65534
CMD ["sh", "-c", "exec gunicorn -c python:servicekit.process.gunicorn_conf \"${SERVICE}_service.app:create_app()\""]
