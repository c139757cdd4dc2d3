"""While pods are replaced, killed, or never get ready, the shop sells and the books balance."""

from types import SimpleNamespace

import pytest

from tests.fixtures.books import balance
from tests.fixtures.services import eventually
from tests.kubernetes.cluster import LOCAL, SERVICES, tell

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]

EVERY_PART = (*SERVICES, "nginx")


def failed(seen):
    """The answers that are no success, and how often they were seen."""
    return {answer: times for answer, times in seen.answers.items() if answer.split()[-1] not in {"200", "201", "202"}}


def orders(shop):
    return shop.query("SELECT count(*) FROM orders.orders")[0][0]


@pytest.mark.parametrize("part", EVERY_PART)
def test_a_rollout_replaces_the_only_pod_and_no_request_fails(shop, request, part):
    before, kept = shop.pods(part), orders(shop)
    with shop.visited() as seen:
        shop.cluster.kubectl("-n", "shop", "rollout", "restart", f"deployment/{part}")
        shop.wait_until_ready()
        # Ready is the new pod; now the old one has to go, too.
        gone = [f"pod/{name}" for name in before]
        shop.cluster.kubectl("-n", "shop", "wait", "--for=delete", *gone, "--timeout=100s", seconds=110)
    tell(request, f"rollout of {part}: {sum(seen.answers.values())} requests, failed: {failed(seen) or 0}")
    assert failed(seen) == {}, seen.failures
    assert not set(before) & set(shop.pods(part))
    placed = sum(times for answer, times in seen.answers.items() if answer.startswith("POST"))
    assert orders(shop) == kept + placed, "an order was placed that its client was not told of, or the reverse"
    balance(shop, [])


@pytest.mark.parametrize("part", ["order-service", "nginx"])  # all have the same budget: test_agreement.py
def test_pods_are_evicted_as_far_as_the_budget_goes_and_no_request_fails(shop, request, part):
    deployment = ["-n", "shop", f"deployment/{part}"]
    shop.cluster.kubectl("scale", *deployment, "--replicas=2")
    try:
        shop.wait_until_ready()
        first, second = shop.pods(part)
        with shop.visited() as seen:
            assert shop.evict(first)
            assert not shop.evict(second), "with one of two pods gone, the budget of one is spent"
            # As `kubectl drain` does: again until it is allowed, which is when the first one's successor is ready.
            eventually(lambda: shop.evict(second), 90, pause=0.5)
            shop.cluster.kubectl(
                "-n", "shop", "wait", "--for=delete", f"pod/{first}", f"pod/{second}", "--timeout=100s", seconds=110
            )
            shop.wait_until_ready()
        tell(request, f"two evictions of {part}: {sum(seen.answers.values())} requests, failed: {failed(seen) or 0}")
        assert failed(seen) == {}, seen.failures
        assert not {first, second} & set(shop.pods(part))
        balance(shop, [])
    finally:
        shop.cluster.kubectl("scale", *deployment, "--replicas=1")
        eventually(lambda: len(shop.pods(part)) == 1, 60, pause=0.5)


def test_a_release_that_never_gets_ready_changes_nothing_for_customers(shop):
    before = shop.pods("order-service")
    deployment = ["-n", "shop", "deployment/order-service"]
    with shop.visited() as seen:
        # A database that is not there: the process is alive, and never ready.
        shop.cluster.kubectl("set", "env", *deployment, "DATABASE_HOST=127.0.0.1", "-c", "order-service")
        try:
            told = shop.cluster.refused("rollout", "status", *deployment, "--timeout=40s")
            assert "timed out" in told
            assert set(before) < set(shop.pods("order-service"))
        finally:
            shop.cluster.kubectl("rollout", "undo", *deployment)
            shop.wait_until_ready()
    assert failed(seen) == {}, seen.failures
    assert shop.pods("order-service") == before
    balance(shop, [])


def test_a_release_waits_for_its_migrations(shop):
    before = shop.pods("order-service")
    deployment = ["-n", "shop", "deployment/order-service"]
    ((newest,),) = shop.query("SELECT version_num FROM public.alembic_version")

    def at(revision):
        psql = ["psql", "-U", "orders_user", "-d", "orders_user", "-c"]
        update = f"UPDATE public.alembic_version SET version_num = '{revision}'"
        shop.cluster.kubectl("-n", "shop", "exec", "order-db-0", "--", *psql, update)

    with shop.visited() as seen:
        at("0001")
        try:
            shop.cluster.kubectl("rollout", "restart", *deployment)
            shop.cluster.refused("rollout", "status", *deployment, "--timeout=20s")
            (new,) = set(shop.pods("order-service")) - set(before)
            (waiting,) = shop.cluster.get("-n", "shop", "pod", new)["status"]["initContainerStatuses"]
            assert "running" in waiting["state"], waiting
        finally:
            at(newest)
        shop.wait_until_ready()
        shop.cluster.kubectl("-n", "shop", "wait", "--for=delete", f"pod/{before[0]}", "--timeout=100s", seconds=110)
    assert failed(seen) == {}, seen.failures
    assert shop.pods("order-service") == [new]


def test_an_upgrade_as_the_documentation_has_it_runs_the_jobs_again_and_no_request_fails(shop):
    with shop.visited() as seen:
        shop.cluster.kubectl("-n", "shop", "delete", "job", "make-secrets", "migrate", "seed", "--ignore-not-found")
        shop.cluster.kubectl("apply", "-k", str(LOCAL))
        for job in ("make-secrets", "migrate", "seed"):
            shop.cluster.kubectl(
                "-n", "shop", "wait", "--for=condition=complete", f"job/{job}", "--timeout=100s", seconds=110
            )
        shop.wait_until_ready()
    assert failed(seen) == {}, seen.failures
    assert "make-secrets: database is there" in shop.cluster.kubectl("-n", "shop", "logs", "job/make-secrets")
    assert "migrate: already at" in shop.cluster.kubectl("-n", "shop", "logs", "job/migrate")


# After those above: the node still knows the connections of a pod that was taken away at once, and sends a client that
# gets the port of one of them again to nobody, until it gives up.
@pytest.mark.parametrize("part", [*EVERY_PART, "order-db"])
def test_a_pod_is_killed_and_every_order_is_answered_in_the_end(shop, request, part):
    (before,) = shop.pods(part)
    uid = shop.cluster.get("-n", "shop", "pod", before)["metadata"]["uid"]
    with shop.visited("--insist") as seen:
        shop.cluster.kubectl("-n", "shop", "delete", "pod", before, "--grace-period=0", "--force")
        eventually(
            lambda: [
                pod
                for pod in shop.cluster.get("-n", "shop", "pods", "-l", f"app.kubernetes.io/name={part}")["items"]
                if pod["metadata"]["uid"] != uid
                and any(
                    state == {"type": "Ready", "status": "True"}
                    for state in (
                        {key: condition[key] for key in ("type", "status")}
                        for condition in pod["status"].get("conditions", [])
                    )
                )
            ],
            120,
            pause=0.5,
        )
        shop.wait_until_ready()
    tell(request, f"kill of {part}: {sum(seen.answers.values())} requests, failed: {failed(seen) or 0}")
    balance(shop, [SimpleNamespace(placed=seen.placed, surprises=seen.surprises)])
