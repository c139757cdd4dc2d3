"""A key in wrong hands, and the one password that everybody knows: how long they open anything."""

import time

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from servicekit.identity.auth import REFRESH_SECONDS
from tests.fixtures.services import eventually

pytestmark = pytest.mark.slow

PLACES = {"auth": "/auth/validate", "user": "/users/me", "order": "/orders/", "payment": "/payments/1"}


@pytest.fixture
def shop(own_stack):
    return own_stack(TELEMETRY="off")


def _forged(shop, **claims):
    """An admin's token, signed with the key that leaked."""
    (file,) = (shop.run_dir / "keys").glob("*.pem")
    (key,) = shop.gateway.get("/auth/.well-known/jwks.json").json()["keys"]
    now = int(time.time())
    said = {"iss": "auth-service", "aud": "shop", "sub": "1", "role": "admin", "iat": now, "exp": now + 3000, **claims}
    return jwt.encode(said, load_pem_private_key(file.read_bytes(), None), "RS256", headers={"kid": key["kid"]})


def test_a_revoked_key_opens_nothing_after_half_a_minute_and_orders_go_on(shop):
    user, internal = _forged(shop), _forged(shop, sub="order-service", aud="payment-service")
    charge = {"order_id": 2**31 - 1, "user_id": 1, "amount_minor": 1, "currency": "EUR"}

    def opened():
        found = [
            name for name, path in PLACES.items() if shop.service(f"{name}-service").get(path, user).status_code != 401
        ]
        key = {"Idempotency-Key": "forged"}
        answer = shop.service("payment-service").post("/internal/charges", charge, internal, headers=key)
        return found + ["charges"] * (answer.status_code != 401)

    assert shop.gateway.post("/orders/", {"product_id": 1}, shop.login()).status_code == 201
    assert opened() == [*PLACES, "charges"]
    done = shop.command("rotate-keys", "--revoke")
    assert done.returncode == 0, done.stderr
    assert "auth" not in opened()
    assert shop.service("auth-service").get(PLACES["auth"], user).status_code == 401
    login = {"username": "admin", "password": "password"}
    token = eventually(lambda: shop.gateway.post("/auth/login", login).json().get("token"), 15, pause=0.2)
    eventually(lambda: shop.gateway.get("/orders/", token).status_code == 200, 15, pause=0.2)
    statuses = set()

    def refused():
        statuses.add(shop.gateway.post("/orders/", {"product_id": 1}, token).status_code)
        return not opened()

    eventually(refused, REFRESH_SECONDS + 10, pause=0.2)
    assert shop.gateway.post("/orders/", {"product_id": 1}, token).status_code == 201
    assert statuses <= {201}


def test_the_demo_login_is_closed_and_opened_at_the_next_start(own_stack):
    stack = own_stack()
    credentials = {"username": "admin", "password": "password"}

    def restarted(value):
        assert stack.command("down").returncode == 0
        stack._environment["SEED_DEMO_ADMIN"] = value
        done = stack.command("up")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert stack.gateway.post("/auth/login", credentials).status_code == 200
    assert "closed the demo login" in restarted("false")
    assert stack.gateway.post("/auth/login", credentials).status_code == 401
    assert "opened the demo login again" in restarted("true")
    assert stack.gateway.post("/auth/login", credentials).status_code == 200
