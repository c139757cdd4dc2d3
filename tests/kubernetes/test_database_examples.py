"""examples/cloudnative-pg.yaml begins as Compose does, and the migrations go on from there. Needs no cluster."""

import re

import pytest

from tests.fixtures.database import INIT_SQL, Database, Server, as_administrator
from tests.kubernetes.test_agreement import OBJECTS
from tests.order_db.test_roles import INSERTS

OWNERSHIP = re.compile(r" AUTHORIZATION \w+|ALTER TABLE \S+ OWNER TO \w+")

CLUSTERS = {each["metadata"]["name"]: each["spec"] for _, each in OBJECTS if each["kind"] == "Cluster"}
STATEMENTS = CLUSTERS["shop-db"]["bootstrap"]["initdb"]["postInitApplicationSQL"]


@pytest.fixture
def server(tmp_path):
    """A PostgreSQL whose owner-to-be is no superuser, as the operator makes it."""
    server = Server(tmp_path)
    server.initialise()
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_it_begins_with_what_compose_begins_with():
    def plain(statements):
        found = [re.sub(r"\s+", "", re.sub(r"--.*", "", OWNERSHIP.sub("", each))) for each in statements]
        return [each for each in found if each]

    assert plain(STATEMENTS) == plain(INIT_SQL.read_text().split(";"))


def test_the_migrations_go_on_when_each_statement_has_a_connection_of_its_own(server):
    # The superuser here is called orders_user, so the owner needs another name.
    (role,) = CLUSTERS["shop-db"]["managed"]["roles"]
    assert (role["login"], role["createrole"], role.get("superuser", False)) == (True, True, False)
    as_administrator(server, "CREATE ROLE owner LOGIN CREATEROLE PASSWORD 'owner-password'")
    as_administrator(server, "CREATE DATABASE owned OWNER owner")
    (server.secrets / "owner").write_text("owner-password")
    owned = Database(server, "owned")

    for statement in STATEMENTS:
        owned.run(statement.replace(role["name"], "owner"))
    done = owned.migrate(DATABASE_USER="owner", DATABASE_PASSWORD_FILE=str(server.secrets / "owner"))

    assert done.returncode == 0, done.stderr
    for role, statement in INSERTS.items():
        owned.run(statement, role=role)
    owners = owned.run(
        "SELECT DISTINCT relowner::regrole::text FROM pg_class"
        " WHERE relnamespace IN ('orders'::regnamespace, 'users'::regnamespace, 'payments'::regnamespace)"
    )
    assert owners == [("owner",)]


def test_a_restored_one_differs_in_where_it_comes_from_and_where_it_archives():
    def common(name):
        return {
            key: value
            for key, value in CLUSTERS[name].items()
            if key not in {"bootstrap", "externalClusters", "plugins"}
        }

    assert common("shop-db-restored") == common("shop-db")
    restored = CLUSTERS["shop-db-restored"]
    (archiver,) = restored["plugins"]
    (source,) = restored["externalClusters"]
    (backed_up,) = CLUSTERS["shop-db"]["plugins"]
    assert restored["bootstrap"]["recovery"]["source"] == source["name"]
    assert source["plugin"]["parameters"] == {**backed_up["parameters"], "serverName": "shop-db"}
    assert archiver["parameters"] == {**backed_up["parameters"], "serverName": "shop-db-restored"}


def test_instances_reach_what_they_ask_each_other_and_the_api_server():
    (policy,) = [
        each["spec"] for _, each in OBJECTS if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "shop-db"
    ]
    instances = {"podSelector": policy["podSelector"]}
    assert policy["podSelector"]["matchExpressions"] == [{"key": "cnpg.io/cluster", "operator": "Exists"}]
    for rules, side in ((policy["ingress"], "from"), (policy["egress"], "to")):
        (among,) = [rule for rule in rules if instances in rule.get(side, [])]
        assert {port["port"] for port in among["ports"]} == {5432, 8000}
    (outside,) = [rule for rule in policy["egress"] if "to" not in rule]
    assert {port["port"] for port in outside["ports"]} == {443, 6443, 8443}
