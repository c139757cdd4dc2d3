import pytest

from tests.fixtures.services import assert_is_a_service


def test_it_is_a_service(client):
    document = assert_is_a_service(client, "payments")
    assert set(document["paths"]) == {"/payments/{payment_id}"}


@pytest.fixture
def payment_id(client, charge):
    return charge(client, user_id=7).json()["id"]


def test_the_payer_reads_a_payment(client, signer, payment_id):
    answer = client.get(f"/payments/{payment_id}", signer.token(7))
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["outcome"]) == (payment_id, "PAID")


def test_an_admin_reads_any_payment(client, signer, payment_id):
    assert client.get(f"/payments/{payment_id}", signer.token(1, "admin")).status_code == 200


def test_somebody_elses_payment_looks_like_none(client, signer, payment_id):
    others = client.get(f"/payments/{payment_id}", signer.token(8))
    none = client.get("/payments/99999", signer.token(8))
    assert others.status_code == none.status_code == 404
    assert others.json()["type"] == none.json()["type"] == "urn:shop:problem:payment-not-found"
    assert others.json()["detail"] == none.json()["detail"].replace("99999", str(payment_id))


@pytest.mark.parametrize("token", [None, "garbage"])
def test_without_a_token_nothing_is_read(client, payment_id, token):
    answer = client.get(f"/payments/{payment_id}", token)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("payment_id", ["0", "-1", "2147483648", "one"])
def test_what_is_no_payment_id_is_404(client, signer, payment_id):
    assert client.get(f"/payments/{payment_id}", signer.token()).status_code == 404
