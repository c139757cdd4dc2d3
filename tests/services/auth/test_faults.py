from auth_service.app import create_app
from auth_service.settings import AuthSettings
from tests.fixtures.services import eventually
from tests.services.auth.conftest import ADA


def test_without_its_keys_nobody_can_log_in_and_it_is_not_ready(start, serve, folder, users, tmp_path, fault):
    start()
    settings = AuthSettings(
        auth_keys_dir=folder, client_secrets_dir=tmp_path / "secrets", user_url=users.root, flags_file=fault.path
    )
    client = serve(create_app(settings))
    assert client.post("/auth/login", ADA).status_code == 200
    fault("keys-unreadable")
    eventually(lambda: client.post("/auth/login", ADA).status_code == 503, 5)
    answer = client.post("/auth/login", ADA)
    assert "signing-keys" in answer.json()["detail"]
    assert client.get("/readyz").status_code == 503
    assert client.get("/auth/.well-known/jwks.json").status_code == 503
    assert client.get("/healthz").status_code == 200
    fault("keys-unreadable", "off")
    eventually(lambda: client.post("/auth/login", ADA).status_code == 200, 5)
