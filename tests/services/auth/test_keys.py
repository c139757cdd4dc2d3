import concurrent.futures
import importlib
import itertools
import os
import stat
import subprocess
import sys

import pytest

from auth_service.keys import PREPUBLISH_SECONDS, KeyRing
from servicekit.identity.auth import REFETCH_SECONDS
from servicekit.web.errors import DependencyUnavailable
from tests.fixtures.database import PROJECT

TTL = 3600


def _kids(ring):
    return [key["kid"] for key in ring.jwks()["keys"]]


def _files(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".pem")


def test_the_first_key_signs_at_once(ring):
    assert _kids(ring) == [ring.signing_key().kid]


def test_ensuring_again_changes_nothing(ring, folder):
    before = (_kids(ring), _files(folder))
    ring.ensure()
    assert (_kids(ring), _files(folder)) == before


def test_replicas_that_start_together_make_one_key_between_them(folder, clock, quick_keys):
    rings = [KeyRing(folder, TTL, clock) for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(KeyRing.ensure, rings))
    assert len(_files(folder)) == 1
    assert len({ring.signing_key().kid for ring in rings}) == 1


def test_keys_are_for_their_owner_only(ring, folder):
    ring.rotate()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in _files(folder)} == {0o600}


def test_nothing_but_keys_is_left_in_the_folder(ring, folder):
    ring.rotate()
    assert {path.suffix for path in folder.iterdir()} <= {".pem", ""}


def test_a_new_key_is_published_at_once_and_signs_when_services_know_it(ring, clock):
    old = ring.signing_key().kid
    clock.now += 100
    new = ring.rotate()
    assert _kids(ring) == [old, new]
    clock.now += PREPUBLISH_SECONDS - 0.1
    assert ring.signing_key().kid == old
    clock.now += 0.1
    assert ring.signing_key().kid == new
    assert _kids(ring) == [old, new]


def test_a_new_key_waits_longer_than_services_wait_to_ask_again():
    assert PREPUBLISH_SECONDS > REFETCH_SECONDS


def test_an_old_key_is_published_until_its_last_token_has_expired(ring, clock):
    """Its last token is signed just before the new key takes over."""
    old = ring.signing_key().kid
    clock.now += 100
    new = ring.rotate()
    clock.now += PREPUBLISH_SECONDS + TTL
    assert ring.key(old) is not None
    clock.now += 61
    assert _kids(ring) == [new]
    assert ring.key(old) is None
    assert ring.signing_key().kid == new


def test_a_key_that_retires_at_this_moment_does_not_sign(ring, clock, folder):
    clock.now += 100
    new = ring.rotate()
    moments = itertools.chain([clock.now + PREPUBLISH_SECONDS + TTL + 59.9], itertools.repeat(clock.now + 10**6))
    assert KeyRing(folder, TTL, lambda: next(moments)).signing_key().kid == new


def test_a_rotation_deletes_the_keys_that_no_living_token_needs(ring, clock, folder):
    clock.now += 100
    second = ring.rotate()
    assert len(_files(folder)) == 2
    clock.now += PREPUBLISH_SECONDS + TTL + 61
    third = ring.rotate()
    assert len(_files(folder)) == 2
    assert _kids(ring) == [second, third]


def test_many_rotations_in_a_row_lose_no_key_that_signed(ring, clock):
    kids = [ring.signing_key().kid]
    for _ in range(3):
        clock.now += 20
        kids.append(ring.rotate())
    assert _kids(ring) == kids
    clock.now += PREPUBLISH_SECONDS
    assert ring.signing_key().kid == kids[-1]


def test_a_rotation_before_the_last_one_took_effect_keeps_a_key_that_may_sign(ring, clock):
    first = ring.signing_key().kid
    clock.now += 20
    second = ring.rotate()
    clock.now += 5
    third = ring.rotate()
    assert ring.signing_key().kid == first
    clock.now += 10
    assert ring.signing_key().kid == second
    clock.now += 5
    assert ring.signing_key().kid == third


def test_two_rings_on_one_folder_agree(ring, folder, clock):
    other = KeyRing(folder, TTL, clock)
    other.ensure()
    clock.now += 100
    ring.rotate()
    assert _kids(other) == _kids(ring)
    clock.now += PREPUBLISH_SECONDS
    assert other.signing_key().kid == ring.signing_key().kid


def test_keys_outlive_the_process(ring, folder, clock):
    assert KeyRing(folder, TTL, clock).signing_key().kid == ring.signing_key().kid


def test_two_rotations_at_once_are_two_keys(folder, quick_keys):
    ring, other = KeyRing(folder, TTL), KeyRing(folder, TTL)
    ring.ensure()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        new = {one.result() for one in [pool.submit(ring.rotate), pool.submit(other.rotate)]}
    assert len(new) == 2
    assert new < set(_kids(ring))


def test_a_folder_without_keys_is_no_error_of_the_client(folder):
    folder.mkdir()
    with pytest.raises(DependencyUnavailable, match="signing-keys"):
        KeyRing(folder, TTL).signing_key()


def test_when_the_keys_are_gone_the_service_is_not_ready_and_says_503(start, folder):
    client = start()
    for key in folder.iterdir():
        key.unlink()
    for path in ("/readyz", "/auth/.well-known/jwks.json"):
        assert client.get(path).status_code == 503
    assert client.get("/healthz").status_code == 200


def test_a_new_key_signs_though_the_clock_has_gone_back(ring, clock):
    old = ring.signing_key().kid
    clock.now -= 5
    new = ring.rotate()
    clock.now += PREPUBLISH_SECONDS + 6
    assert old != new == ring.signing_key().kid


def test_keys_in_a_read_only_folder_are_enough(ring, folder):
    lock = folder / ".lock"
    lock.unlink()
    KeyRing(folder, TTL).ensure()
    assert not lock.exists()


def test_a_half_written_key_does_not_count(ring, folder):
    (folder / "1800000000001.new").write_text("half")
    (folder / "notes.txt").write_text("hello")
    assert len(_kids(ring)) == 1


def test_a_rotation_logs_nobody_out(start, folder):
    client = start()
    login = {"username": "ada", "password": "correct horse"}
    before = client.post("/auth/login", login).json()["token"]
    KeyRing(folder, TTL).rotate()
    after = client.post("/auth/login", login).json()["token"]
    assert [client.get("/auth/validate", token).status_code for token in (before, after)] == [200, 200]
    assert len(client.get("/auth/.well-known/jwks.json").json()["keys"]) == 2


def test_to_revoke_is_to_sign_with_a_new_key_at_once_and_to_publish_no_other(ring, folder, clock):
    clock.now += 100
    ring.rotate()
    before = _kids(ring)
    new, withdrawn = ring.revoke()
    assert (withdrawn, _kids(ring), ring.signing_key().kid) == (2, [new], new)
    assert new not in before
    assert [ring.key(kid) for kid in before] == [None, None]
    assert len(_files(folder)) == 1
    assert KeyRing(folder, TTL, clock).signing_key().kid == new


def test_to_revoke_in_an_empty_folder_makes_the_first_key(folder, quick_keys):
    ring = KeyRing(folder, TTL)
    new, withdrawn = ring.revoke()
    assert (withdrawn, _kids(ring)) == (0, [new])


def test_a_revoked_key_does_not_count_when_its_file_comes_back(ring, folder, clock):
    (name,) = _files(folder)
    pem = (folder / name).read_bytes()
    new, _ = ring.revoke()
    for back in (name, "1900000000000.pem"):  # as it was called, and as the newest
        (folder / back).write_bytes(pem)
        assert _kids(KeyRing(folder, TTL, clock)) == _kids(ring) == [new]
    clock.now += 1000
    assert ring.rotate() in _kids(ring)
    assert new in _kids(ring)


def test_revoking_again_and_rotating_after_it_work_as_ever(ring, clock):
    ring.revoke()
    second, withdrawn = ring.revoke()
    assert (withdrawn, _kids(ring)) == (1, [second])
    clock.now += 100
    third = ring.rotate()
    assert _kids(ring) == [second, third]
    assert ring.signing_key().kid == second


def test_a_key_that_somebody_deletes_is_withdrawn_too(ring, folder, clock):
    clock.now += 100
    new = ring.rotate()
    (folder / _files(folder)[0]).unlink()
    assert _kids(ring) == [new]
    assert ring.signing_key().kid == new


def test_a_revocation_logs_everybody_out_at_once(start, folder):
    client, replica = start(), start()
    login = {"username": "ada", "password": "correct horse"}
    before = client.post("/auth/login", login).json()["token"]
    assert [one.get("/auth/validate", before).status_code for one in (client, replica)] == [200, 200]
    KeyRing(folder, TTL).revoke()
    assert [one.get("/auth/validate", before).status_code for one in (client, replica)] == [401, 401]
    after = client.post("/auth/login", login).json()["token"]
    assert [one.get("/auth/validate", after).status_code for one in (client, replica)] == [200, 200]


@pytest.fixture
def command(folder):
    def run(*arguments, **env):
        paths = (PROJECT / "services", PROJECT / "services/auth/src")
        return subprocess.run(
            [sys.executable, "-m", "auth_service.keys", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "AUTH_KEYS_DIR": str(folder), **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    return run


def test_the_command_makes_the_first_key_once_and_rotates(command, folder):
    assert command("ensure").returncode == command("ensure").returncode == 0
    assert len(_files(folder)) == 1
    done = command("rotate")
    assert done.returncode == 0
    assert f"signs in {PREPUBLISH_SECONDS} s" in done.stdout
    assert any(kid in done.stdout for kid in _kids(KeyRing(folder, TTL)))
    assert len(_files(folder)) == 2


def test_the_command_revokes_and_says_what_that_means(command, folder):
    command("ensure")
    (old,) = _kids(KeyRing(folder, TTL))
    done = command("revoke")
    assert done.returncode == 0, done.stderr
    (new,) = _kids(KeyRing(folder, TTL))
    assert old != new
    assert new in done.stdout
    assert "withdrawn: 1" in done.stdout
    assert "log in again" in done.stdout
    assert stat.S_IMODE((folder / f"{old}.revoked").stat().st_mode) == 0o600


def test_compose_does_not_put_a_revoked_key_back(command, folder, monkeypatch, capsys, tmp_path):
    """The step that fills the volumes knows keys by their content only."""
    given = tmp_path / "signing_key.pem"
    command("ensure")
    given.write_bytes((folder / _files(folder)[0]).read_bytes())
    command("revoke")
    left = _files(folder)
    monkeypatch.syspath_prepend(PROJECT / "order-db-services")
    make_secrets = importlib.import_module("make_secrets")
    make_secrets.add_signing_key(folder, given)
    assert _files(folder) == left
    assert "was revoked" in capsys.readouterr().out


def test_rotating_an_empty_folder_makes_the_first_key(command, folder):
    done = command("rotate")
    assert done.returncode == 0, done.stderr
    assert len(_files(folder)) == 1


def test_the_command_explains_itself(command):
    done = command("--help")
    assert done.returncode == 0
    assert "ensure" in done.stdout
    assert "rotate" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("explode",), ("rotate", "twice")])
def test_the_command_refuses_what_it_does_not_know(command, arguments, folder):
    done = command(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert not folder.exists()


def test_the_command_names_a_missing_setting(command):
    done = command("ensure", AUTH_KEYS_DIR="")
    assert done.returncode != 0
    assert "AUTH_KEYS_DIR" in done.stderr
