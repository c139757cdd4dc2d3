"""An auth-service, with a stand-in for user-service that knows ada, and keys in a folder of the test's own."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from auth_service.app import create_app
from auth_service.keys import KeyRing
from auth_service.settings import AuthSettings

SECRET = "order's own: & secret"
ADA = {"username": "ada", "password": "correct horse"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "keys"


@pytest.fixture
def quick_keys(monkeypatch):
    """Keys too short to sign with, which take a tenth of the time to make."""
    monkeypatch.setattr("auth_service.keys._KEY_BITS", 1024)


@pytest.fixture
def ring(folder, clock, quick_keys):
    made = KeyRing(folder, 3600, clock)
    made.ensure()
    return made


@pytest.fixture
def users(peer):
    """Knows ada; everybody else is unknown."""
    server = peer()
    server.expect_request("/internal/credentials", method="POST", json=ADA).respond_with_json(
        {"user_id": 7, "role": "customer"}
    )
    server.expect_request("/internal/credentials", method="POST").respond_with_json({}, status=401)
    return server


@pytest.fixture
def start(serve, users, folder, signer, tmp_path):
    """`start()`: a client of an auth-service on the test's folder of keys; a second one is a replica."""
    folder.mkdir(mode=0o700)
    pem = signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "1700000000000.pem").write_bytes(pem)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "order-service").write_text(f"{SECRET}\n")
    settings = AuthSettings(auth_keys_dir=folder, client_secrets_dir=secrets, user_url=users.root)
    return lambda: serve(create_app(settings))


@pytest.fixture
def client(start):
    return start()
