"""What `init` gives each container in Docker Compose. Owners are only asked for: to set them takes root."""

import importlib.util
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from auth_service.keys import KeyRing
from tests.fixtures.database import PROJECT


@pytest.fixture
def init(monkeypatch):
    spec = importlib.util.spec_from_file_location("make_secrets", PROJECT / "order-db-services" / "make_secrets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.owners = {}
    monkeypatch.setattr(
        module.os,
        "chown",
        lambda path, uid, gid: module.owners.update({path.name.removesuffix(".partial"): (uid, gid)}),
    )
    return module


def test_a_services_secret_is_for_the_service_and_auth_service(init, tmp_path):
    (path, given) = (tmp_path / "order-service", tmp_path / "given")
    init.make_password(path, given, init.CLIENT_SECRETS["order-service"], init.AUTH_UID)
    assert len(path.read_text().strip()) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    assert list(init.owners.values()) == [(10004, 10001)]


def test_each_client_of_auth_service_has_a_secret(init):
    from auth_service.domain import MAY_CALL  # noqa: PLC0415
    from local.stack import CLIENTS  # noqa: PLC0415

    assert set(init.CLIENT_SECRETS) == set(MAY_CALL) == set(CLIENTS)


def test_a_given_key_that_was_revoked_is_not_put_back(init, tmp_path, capsys):
    keys, given = tmp_path / "keys", tmp_path / "signing_key.pem"
    keys.mkdir()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    given.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    init.add_signing_key(keys, given)
    ring = KeyRing(keys, 3600)
    (leaked,) = [one["kid"] for one in ring.jwks()["keys"]]
    new, _ = ring.revoke()
    before = sorted(path.name for path in keys.iterdir())
    init.add_signing_key(keys, given)
    assert sorted(path.name for path in keys.iterdir()) == before
    assert "was revoked" in capsys.readouterr().out
    assert [one["kid"] for one in ring.jwks()["keys"]] == [new] != [leaked]
