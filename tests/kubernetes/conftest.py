"""The cluster that all tests here share, and the shop in it."""

import os
import signal

import pytest

from tests.kubernetes.cluster import NAMESPACES, Cluster, NoClusterError, ShopInKubernetes, program, tell


@pytest.fixture(scope="session")
def cluster():
    """The cluster of kubectl's current context."""
    found = Cluster(program())
    try:
        found.check()
        found.check_it_has_all()
    except NoClusterError as error:
        pytest.exit(str(error), returncode=2)
    return found


@pytest.fixture(scope="session")
def shop(cluster, request):
    """The shop and its telemetry, from an empty cluster. Nothing of it is left afterwards."""
    there = [item["metadata"]["name"] for item in cluster.get("namespaces")["items"]]
    if (ours := [name for name in NAMESPACES if name in there]) and not os.environ.get("CI_NO_SKIPS"):
        pytest.exit(
            f"The cluster has the namespaces {', '.join(ours)} already, and these tests would delete them: delete them"
            " yourself first, or use another cluster",
            returncode=2,
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends the tests early wants nothing left either
    running = ShopInKubernetes(cluster)
    try:
        running.down()
        try:
            running.up()
        except NoClusterError as error:
            pytest.exit(str(error), returncode=2)
        tell(request, f"from an empty cluster to the first order: {running.seconds:.0f} s")
        yield running
    finally:
        running.down()


@pytest.fixture(scope="session")
def signalled(shop):
    """The shop, whose processes can be stopped and killed from inside their pods."""
    shop.share_processes()
    return shop
