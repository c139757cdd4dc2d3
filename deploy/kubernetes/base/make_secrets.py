"""Make the shop's Secrets, as a pod of the cluster: passwords, and the first signing key. What is there stays."""

from __future__ import annotations

import json
import os
import secrets
import ssl
import sys
import time
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PASSWORDS = {
    "database": ("orders_user", "users_app", "orders_app", "payments_app"),
    "clients": ("order-service",),
}
"""Secret and its keys, each with a password of its own. `signing-keys` is made beside these."""


def main() -> None:
    """Make each Secret that is missing."""
    for name, keys in PASSWORDS.items():
        make(name, {key: f"{secrets.token_urlsafe(24)}\n" for key in keys}, keys)
    # The name is when the key was made, as auth_service.keys names them.
    make("signing-keys", {f"{int(time.time() * 1000):013d}.pem": signing_key()})


def make(name: str, content: dict[str, str], needed: tuple[str, ...] = ()) -> None:
    """Make a Secret, unless it is there.

    Args:
        name: Its name.
        content: What to put into it.
        needed: The keys that one which is there has to have.
    """
    metadata = {"name": name, "labels": {"app.kubernetes.io/part-of": "shop"}}
    status, answer = ask("POST", "", {"metadata": metadata, "stringData": content})
    if status == HTTPStatus.CREATED:
        print(f"make-secrets: made {name}")
        return
    if status != HTTPStatus.CONFLICT:
        sys.exit(f"make-secrets: cannot make the Secret {name}: {answer.get('message', status)}")
    status, answer = ask("GET", f"/{name}")
    found = answer.get("data") or {}
    if missing := [key for key in needed if not found.get(key)]:
        sys.exit(
            f"make-secrets: the Secret {name} is there, but has no {', '.join(missing)}: add it, or delete the Secret"
        )
    if not found:
        sys.exit(f"make-secrets: the Secret {name} is there, but empty: fill it, or delete it")
    print(f"make-secrets: {name} is there")


def signing_key() -> str:
    """Make an RSA key, in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def ask(method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    """Ask Kubernetes' API about Secrets of this namespace: (status, answer)."""
    namespace = (ACCOUNT / "namespace").read_text().strip()
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # many clusters' own authorities lack an extension that it wants
    request = Request(  # always https
        f"https://{host}:{port}/api/v1/namespaces/{namespace}/secrets{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urlopen(request, timeout=10, context=context) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


if __name__ == "__main__":
    main()
