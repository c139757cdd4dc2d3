"""The cluster that all tests here share, and the shop in it."""

import os
import signal
from pathlib import Path

import pytest

from tests.fixtures.kept import unless_all_is_well
from tests.kubernetes.cluster import Cluster, NoClusterError, ShopInKubernetes, program, tell


def pytest_collection_modifyitems(items):
    """Put last what leaves declined orders, load and all journeys: the other tests balance the books."""
    last = ("test_load.py", "test_telemetry.py")
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.parent == here and item.path.name in last and last.index(item.path.name) + 1)


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
    if not os.environ.get("CI_NO_SKIPS"):
        try:
            cluster.check_it_is_empty()
        except NoClusterError as error:
            pytest.exit(str(error), returncode=2)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends the tests early wants nothing left either
    running = ShopInKubernetes(cluster)
    try:
        running.down()
        with unless_all_is_well(request, cluster.keep, "kubernetes"):
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
