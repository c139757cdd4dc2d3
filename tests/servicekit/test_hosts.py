"""Which hosts a request may name."""

import pytest

from servicekit.hosts import is_foreign

OURS = (
    "",
    "localhost",
    "LOCALHOST:3100",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1:80",
    "[::1]:3100",
    "10.0.0.7",
    "loki:3100",
)
NAMED = ("host.docker.internal", "shop.localhost", "loki.shop.svc", "loki.shop.svc.cluster.local:3100")
FOREIGN = ("evil.example", "EVIL.example:3100", "evil.example.", "127.0.0.1.evil.example", "localhost.evil.example")
ODD = ("127.0.0.1@evil.example", "evil.example#localhost", "0x7f.1", "[")


@pytest.mark.parametrize("host", [*OURS, *NAMED])
def test_an_address_or_a_name_that_nobody_can_register_is_ours(host):
    assert not is_foreign(host)


@pytest.mark.parametrize("host", [*FOREIGN, *ODD])
def test_a_name_that_may_be_in_somebodys_dns_is_foreign(host):
    assert is_foreign(host)
