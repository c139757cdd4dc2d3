import pytest

from servicekit.config import ConfigError, ServiceSettings, load
from servicekit.web.hosts import Hosts
from tests.servicekit.sample import sample_app

HTTP = "HTTP/1.1"


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:5004", "localhost.", "order-service", "order-service:5004", "127.0.0.1:80", "10.1.2.3",
     "[::1]:5004", "[2001:DB8::1]", "shop.example", "SHOP.example:1", "a.b.internal"],
)  # fmt: skip
def test_its_names_and_addresses_are_trusted(host):
    assert Hosts("order-service", " shop.example,, .internal ").trusts(host, HTTP)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "x", "", " ", "localhost.evil.example", "notlocalhost", "order-service.evil", "shop.example.evil",
     "xinternal", "internal", "127.0.0.1.evil.example", "127.0.0.1:80:80", "127.1.evil", "256.1.1.1", "[::1", "::1",
     "[evil.example]", "localhost,evil.example", "localhost evil", "localhost/", "user@localhost", "localhost:",
     "localhost:a", "localhost:123456", "localhost\n", "\u217cocalhost", "localhost\x00"],
)  # fmt: skip
def test_other_names_and_what_is_no_name_are_not(host):
    assert not Hosts("order-service", "shop.example,.internal").trusts(host, HTTP)


def test_only_http_1_0_may_do_without():
    assert Hosts("x").trusts(None, "HTTP/1.0")
    assert not Hosts("x").trusts(None, HTTP)
    assert not Hosts("x").trusts(None)


@pytest.mark.parametrize("path", ["/notes/7", "/healthz", "/readyz", "/metrics", "/nowhere", "/notes/openapi.json"])
def test_a_page_that_gave_its_own_name_this_address_gets_nothing(serve, path):
    client = serve(sample_app())
    answer = client.get(path, headers={"Host": "rebound.evil.example"})
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:sample:problem:untrusted-host"
    assert "evil" not in answer.text
    assert client.get("/notes/7", headers={"Host": "sample:1"}).status_code == 200


def test_nothing_is_done_for_it_either(serve):
    client = serve(sample_app())
    answer = client.post("/notes/", {"title": "a"}, headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert client.post("/notes/", {"title": "a"}).status_code == 201


def test_further_names_are_a_setting(serve, monkeypatch):
    monkeypatch.setenv("TRUSTED_HOSTS", "shop.example")
    client = serve(sample_app(settings=load(ServiceSettings)))
    assert client.get("/notes/7", headers={"Host": "shop.example"}).status_code == 200
    assert client.get("/notes/7", headers={"Host": "other.example"}).status_code == 400
    monkeypatch.setenv("TRUSTED_HOSTS", "http://shop.example/")
    with pytest.raises(ConfigError, match="TRUSTED_HOSTS"):
        load(ServiceSettings)
