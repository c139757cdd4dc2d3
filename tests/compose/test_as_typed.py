"""The documented commands do what the documentation says, typed in a terminal."""

import json
import re
import time

import pytest

from tests.compose.composed import EMBEDDED_FILE, LIGHT_FILES, LONG_RUNNING, ONE_SHOTS, PROJECT
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

MANUAL = (PROJECT / "docs" / "compose.md").read_text()
BLOCKS = [
    [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    for block in re.findall(r"```console\n(.*?)```", MANUAL, re.DOTALL)
]
START, BACKUP, EMPTY, LIGHT, OBSERVED, LOOK, _ELSEWHERE = BLOCKS  # the last one sends to a backend that nobody has
WITHOUT_JQ = re.search(r"\| no `jq` \| `(.+?)` in its place", MANUAL)[1]
ONE_LINERS = dict(re.findall(r"^\| ([^|]+?) \| `([^`]+)` \|$", MANUAL, re.MULTILINE))
PSQL = "docker exec -it order-db psql -U orders_user -d orders_user"


def count(shop):
    return shop.query("SELECT count(*) FROM orders.orders")[0][0]


@pytest.mark.parametrize("json_tool", ["jq -r .token", WITHOUT_JQ], ids=["jq", "without jq"])
def test_the_first_commands_place_an_order(shop, json_tool):
    script = "\n".join(START)
    assert "| jq -r .token" in script
    shown = shop.typed(script.replace("jq -r .token", json_tool), seconds=120)
    assert '{"id"' in shown, shown
    order, _ = json.JSONDecoder().raw_decode(shown[shown.index('{"id"') :])
    assert order["status"] == "PAID"
    assert re.search(rf"^ +{order['id']} \| PAID$", shown, re.MULTILINE)
    assert shown.count("(healthy)") == len(LONG_RUNNING)


def test_every_container_is_healthy_and_every_one_shot_has_succeeded(shop):
    assert shop.unhealthy() == []
    for service in ONE_SHOTS:
        state = shop.inspect(service)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0), service


def test_the_names_are_the_known_ones(shop):
    assert set(shop.compose("config", "--services").split()) == {*LONG_RUNNING, *ONE_SHOTS}
    assert shop.inspect("order-db")["Name"] == "/order-db"
    assert "devopsmicroservices_order_db_data" in shop.run("docker", "volume", "ls", "--quiet").split()
    assert list(shop.inspect("nginx")["NetworkSettings"]["Networks"]) == ["devopsmicroservices_micro-net"]


def test_compose_has_nothing_to_complain_of(shop):
    shown = shop.typed("docker compose config --quiet")  # fails if it is not valid
    assert not re.search("WARN|level=warning|obsolete", shown), shown


def test_psql_shows_the_schema_that_users_know(shop):
    shown = shop.typed(PSQL, [r"\dn", r"\dt orders.*", r"\d orders.orders", r"\q"])
    for schema in ("orders", "users", "payments"):
        assert re.search(rf"^ {schema} +\| orders_user", shown, re.MULTILINE), shown
    assert re.search(r"^ orders \| orders \| table \| orders_user", shown, re.MULTILINE), shown
    columns = [
        [cell.strip() for cell in line.split("|")]
        for line in shown.splitlines()
        if line.count("|") == 4 and "+" not in line
    ]
    header = columns.index(["Column", "Type", "Collation", "Nullable", "Default"])
    assert columns[header + 1 : header + 5] == [
        ["id", "integer", "", "not null", "nextval('orders.orders_id_seq'::regclass)"],
        ["product", "jsonb", "", "not null", ""],
        ["status", "character varying(50)", "", "not null", ""],
        ["created_at", "timestamp without time zone", "", "", "CURRENT_TIMESTAMP"],
    ]


def test_a_changed_service_is_rebuilt_alone(shop, token):
    others = {service: shop.containers(service) for service in LONG_RUNNING if service != "order-service"}
    before = shop.containers("order-service")
    source = shop.clone / "services" / "order" / "src" / "order_service" / "__init__.py"
    source.write_text(source.read_text() + '\nCHANGED = "yes"\n')
    began = time.monotonic()
    shop.typed("docker compose up -d --build order-service", seconds=120)
    shop.wait_until_ready()
    assert time.monotonic() - began < 60
    assert shop.containers("order-service") != before
    assert {service: shop.containers(service) for service in others} == others
    assert shop.inside("order-service", "python", "-c", "import order_service; print(order_service.CHANGED)") == (
        0,
        "yes\n",
    )
    shop.order(token)


def test_all_of_three_replicas_get_orders_and_then_it_is_one_again(shop, token):
    def served(replica):
        lines = shop.run("docker", "logs", replica).splitlines()
        return sum('"http_route":"/orders/"' in line and '"method":"POST"' in line for line in lines)

    shop.typed("docker compose up -d --scale order-service=3", seconds=120)
    shop.wait_until_ready()
    replicas = shop.containers("order-service")
    assert len(replicas) == 3
    before = {replica: served(replica) for replica in replicas}

    def all_have_served():
        shop.order(token)
        return all(served(replica) > before[replica] for replica in replicas)

    eventually(all_have_served, 30)
    shop.typed("docker compose up -d --scale order-service=1", seconds=120)
    assert len(shop.containers("order-service")) == 1
    eventually(lambda: shop.gateway.get("/orders/", token).status_code == 200, 10)
    shop.order(token)


def test_up_again_changes_nothing_and_makes_no_secret_again(shop):
    containers = {service: shop.containers(service) for service in LONG_RUNNING}
    secrets = shop.secrets()
    assert {"orders_user", "orders_app", "users_app", "payments_app", "order-service"} < set(secrets)
    shop.typed("docker compose up -d", seconds=120)
    assert {service: shop.containers(service) for service in LONG_RUNNING} == containers
    assert shop.secrets() == secrets


def test_data_secrets_and_logins_survive_down_and_up(shop, token):
    shop.order(token)
    orders, secrets = count(shop), shop.secrets()
    shop.typed("docker compose down\ndocker compose up -d", seconds=200)
    shop.wait_until_ready()
    assert count(shop) == orders
    assert shop.secrets() == secrets
    shop.order(token)


def test_without_its_volume_the_database_starts_empty(shop, token):
    assert EMPTY[:2] == ["docker compose down", "docker volume rm devopsmicroservices_order_db_data"]
    shop.order(token)
    shop.typed("\n".join([*EMPTY[:2], "docker compose up -d order-db", *EMPTY[2:]]), seconds=200)
    shop.wait_until_ready()
    assert count(shop) == 0
    shop.order(shop.login())


def test_a_dump_restores_every_row(shop, token):
    tables = ("orders.orders", "users.users", "payments.payments")

    def rows():
        return {table: shop.query(f"SELECT t::text FROM {table} t ORDER BY id") for table in tables}

    dump, restore = BACKUP
    shop.order(token)
    kept = rows()
    assert all(kept.values())
    shop.typed(dump)
    shop.order(token)
    shop.query("DELETE FROM payments.payments WHERE order_id = 1 RETURNING id")
    assert rows() != kept
    shop.typed(restore)
    assert rows() == kept
    eventually(lambda: shop.gateway.get("/orders/", token).status_code == 200, 10)
    shop.order(token)  # the sequences go on, the services' rights are there


def test_a_rotated_key_logs_nobody_out(shop, token):
    def published():
        return {key["kid"] for key in shop.gateway.get("/auth/.well-known/jwks.json").json()["keys"]}

    before = published()
    shop.typed(ONE_LINERS["rotate the signing key; nobody is logged out"])
    assert published() > before
    assert shop.gateway.get("/users/me", token).status_code == 200
    shop.order(shop.login())


@pytest.mark.parametrize("what", ["look at metrics", "apply a change in `nginx/`"])
def test_a_documented_one_liner_runs(shop, what):
    shown = shop.typed(ONE_LINERS[what])
    assert "orders_total" in shown or "nginx" in shown
    shop.wait_until_ready()


def test_the_password_can_be_printed_and_opens_the_database(shop):
    assert shop.query("SELECT current_user") == [("orders_user",)]


def test_a_password_given_later_counts_from_the_next_up_on(shop, token):
    before = shop.secrets()["orders_app"]
    (shop.clone / "secrets" / "orders_app").write_text("given later\n")
    shop.typed("docker compose up -d", seconds=120)
    assert shop.secrets()["orders_app"] == "given later\n" != before
    shop.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'orders_app'")
    eventually(lambda: shop.gateway.get("/orders/", token).status_code == 200, 10)
    shop.order(token)


def test_a_port_that_is_taken_is_named(shop):
    message = shop.fail("docker", "run", "--rm", "--publish", "127.0.0.1:5433:5432", "postgres:16.15-bookworm")
    assert "port is already allocated" in message
    assert "port is already allocated" in MANUAL


def test_the_stack_passes_the_health_checks(shop):
    assert re.search(r"\d+ passed", shop.health_checks())


def test_the_command_for_the_light_overlay_is_what_its_tests_start():
    (command,) = LIGHT
    files = " ".join(f"-f {name}" for name in LIGHT_FILES.split(":"))
    assert command == f"docker compose {files} up -d --build --wait"


def test_the_commands_for_telemetry_show_an_order(observed, token):
    typed = "\n".join(OBSERVED)
    assert typed.count(" -f docker-compose.observability.yml ") == 2
    if observed.loki == "embedded":
        typed = typed.replace("observability.yml ", f"observability.yml -f {EMBEDDED_FILE} ")
    shown = observed.typed(typed, seconds=300)
    assert shown.count("(healthy)") == len(observed.long_running) - 1  # the Collector's image can have no health check
    answer = observed.gateway.post("/orders/", {"product_id": 1}, observed.login())
    trace_id = answer.headers["traceresponse"].split("-")[1]

    def looked():
        return observed.typed("\n".join([f"TRACE={trace_id}", *LOOK]))

    seen = eventually(lambda: (text := looked()) and '"settle order"' in text and "order.created" in text and text, 20)
    assert "job_route:http_server_requests:rate1m" in seen
    assert observed.typed("docker compose exec grafana cat /var/lib/grafana/admin_password").strip()
