"""Which request reaches which service, and which reaches none."""

import re

import pytest

from local.nginx import SOURCE

ROUTES = [
    ("POST", "/auth/login", "auth"),
    ("GET", "/auth/validate", "auth"),
    ("GET", "/auth/.well-known/jwks.json", "auth"),
    ("GET", "/auth/openapi.json", "auth"),
    ("GET", "/users/me", "user"),
    ("GET", "/users/7", "user"),
    ("GET", "/users/", "user"),
    ("POST", "/users/", "user"),
    ("GET", "/users/openapi.json", "user"),
    ("GET", "/products/", "product"),
    ("GET", "/products/?limit=2&cursor=a%2Fb", "product"),
    ("GET", "/products/3", "product"),
    ("HEAD", "/products/3", "product"),
    ("GET", "/products/openapi.json", "product"),
    ("POST", "/orders/", "order"),
    ("GET", "/orders/", "order"),
    ("GET", "/orders/12345678901234567890", "order"),
    ("OPTIONS", "/orders/", "order"),
    ("DELETE", "/orders/1", "order"),
    ("GET", "/orders/openapi.json", "order"),
    ("GET", "/payments/1", "payment"),
    ("HEAD", "/payments/1", "payment"),
    ("GET", "/payments/openapi.json", "payment"),
]

INTERNAL = ["/readyz", "/metrics", "/internal/credentials", "/internal", "/.problem", "/nginx_status"]
PREFIXES = ["", "/auth", "/users", "/products", "/orders", "/payments"]

# Ways to write a path that a proxy and a service may read differently; %s is an internal path without its slash.
SPELLINGS = [
    "//%s",
    "/./%s",
    "/orders/../%s",
    "/orders/1/../../%s",
    "/orders/%%2e%%2e/%s",
    "/orders/%%2E./%s",
    "/orders/..%%2f%s",
    "/orders%%2f..%%2f%s",
    "/orders/%%252e%%252e/%s",
    "/orders/%%252e%%252e%%252f%s",
    "/orders/..;/%s",
    "/orders;/../%s",
    "/orders/;/%s",
    "/orders/1/%s",
    "/orders/1%%2f..%%2f%s",
    "/orders//%s",
    "/orders/..\\%s",
    "\\%s",
    "/orders/%%5c..%%5c%s",
    "/%s/",
    "/%s.",
    "/%s%%20",
    "/%s%%00",
    "/%s%%00/orders/1",
    "/%s;/orders/1",
    "/%s#/orders/1",
    "/%s?/orders/1",
    "/%%2f%s",
    "/orders/%%c0%%ae%%c0%%ae/%s",
    "/orders/.../%s",
    "/..%%00/%s",
    "/orders/%%2e%%2e%%2f%s",
    "http://localhost/%s",
    "http://localhost//orders/../%s",
    "http://localhost/orders/..%%2f%s",
    "/orders/\x7f../%s",
]


@pytest.mark.parametrize(("method", "target", "service"), ROUTES)
def test_a_route_reaches_its_service_unchanged(gateway, method, target, service):
    answer = gateway.request(method, target)
    assert answer.status == 200
    assert [received.line for received in gateway.services[service].requests] == [f"{method} {target} HTTP/1.1"]
    assert len(gateway.reached()) == 1


def test_every_route_of_the_table_is_tested_here():
    table = (SOURCE / "gateway" / "routes.conf").read_text()
    patterns = re.findall(r'^    "(~\^/(?:auth|users|products|orders|payments)/.*?)" ', table, re.MULTILINE)
    patterns = [pattern[1:] for pattern in patterns if pattern.endswith("$)")]
    assert len(patterns) > 15
    targets = [target for _, target, _ in ROUTES]
    assert [pattern for pattern in patterns if not any(re.match(pattern, target) for target in targets)] == []


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", [*INTERNAL, "/healthz"])
def test_what_is_internal_is_not_found_under_any_prefix(gateway, prefix, path):
    targets = {prefix + path, prefix + path.upper(), prefix + path.title()}
    for target in targets - {"/healthz"}:  # the gateway's own
        assert gateway.request("GET", target).status == 404, target
    assert gateway.reached() == []


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_internal_stays_inside_however_it_is_written(gateway, spelling):
    for path in ("metrics", "readyz", "healthz", "internal/credentials", "payments/internal/charges"):
        target = spelling % path
        answer = gateway.request("GET", target)
        own_health = target.split("?")[0].removeprefix("http://localhost") == "/healthz"
        assert answer.status in ({200} if own_health else {400, 404}), target
        assert own_health or answer.headers["Content-Type"] == "application/problem+json"
    assert gateway.reached() == []


@pytest.mark.parametrize(
    "target",
    [
        "/orders/%31",
        "/%6frders/1",
        "/Orders/1",
        "/orders/1/",
        "/orders/1.",
        "/orders/1%00",
        "/orders/-1",
        "/orders//1",
        "/products/./1",
        "/products/1;v=2",
        "/users/ME",
        "/%68ealthz",
        "/auth/login/",
        "/users%2fme",
        "*",
    ],
)
def test_a_path_has_one_spelling(gateway, target):
    assert gateway.request("GET", target).status in {400, 404}
    assert gateway.reached() == []


def test_a_raw_nul_in_the_path_is_a_bad_request(gateway):
    answer = gateway.raw(b"GET /orders/1\x00/../metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.status == 400
    assert gateway.reached() == []


def test_absolute_form_reaches_the_same_route(gateway):
    assert gateway.request("GET", "http://elsewhere.example/orders/1?x=1").status == 200
    assert gateway.services["order"].requests[0].line == "GET /orders/1?x=1 HTTP/1.1"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("target", ["/payments/1", "/", "/healthz"])
def test_what_can_only_be_read_refuses_other_methods(gateway, method, target):
    answer = gateway.request(method, target, body=b"{}")
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
    assert answer.json()["status"] == 405
    assert gateway.reached() == []


def test_charging_does_not_exist_outside(gateway):
    for target in ("/payments/", "/payments", "/payments/charges", "/payments/internal/charges"):
        assert gateway.request("POST", target, body=b"{}").status == 404
    assert gateway.reached() == []


@pytest.mark.parametrize("name", ["users", "products", "orders"])
def test_a_missing_slash_is_a_redirect_that_keeps_method_and_query(gateway, name):
    answer = gateway.request("POST", f"/{name}?limit=2", body=b"{}")
    assert (answer.status, answer.headers["Location"]) == (308, f"/{name}/?limit=2")
    assert gateway.request("GET", f"/{name}").headers["Location"] == f"/{name}/"
    assert gateway.reached() == []


def test_the_gateway_has_a_health_of_its_own(gateway):
    answer = gateway.request("GET", "/healthz?x=1")
    assert (answer.status, answer.headers["Content-Type"], answer.json()) == (
        200,
        "application/json",
        {"status": "ok"},
    )
    assert gateway.request("HEAD", "/healthz").status == 200
    assert gateway.reached() == []


def test_the_front_page_names_routes_that_exist(gateway):
    links = gateway.request("GET", "/").json()
    openapi = links.pop("openapi")
    assert len(openapi) == 5
    for target in [*links.values(), *openapi]:
        assert gateway.request("GET", target).status == 200, target
