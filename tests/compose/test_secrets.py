"""What a person gives wins over what `init` made. Tried in a project of its own, with volumes of its own."""

import subprocess

import pytest

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

RUN = ("run", "--rm", "--build", "--no-deps", "init")  # built anew: an image may be there of an earlier run


class Init:
    """The one-shot `init` of a project of its own."""

    project = "devopsmicroservices-init"

    def __init__(self, shop, given):
        self._shop, self.given = shop, given

    def command(self, *arguments):
        return ("docker", "compose", "--project-name", self.project, *arguments)

    def run(self):
        self._shop.run(*self.command(*RUN), SECRETS_DIR=str(self.given), seconds=120)
        return self._shop.files(f"{self.project}_secrets"), self._shop.files(f"{self.project}_signing_keys")

    def refusal(self):
        return self._shop.fail(*self.command(*RUN), SECRETS_DIR=str(self.given))


@pytest.fixture
def init(shop, tmp_path):
    given = tmp_path / "given"
    given.mkdir(mode=0o700)
    one = Init(shop, given)
    yield one
    shop.run(*one.command("down", "--volumes"))


def give(init, name, content):
    path = init.given / name
    path.write_text(content)
    path.chmod(0o600)


def test_a_given_password_wins_and_the_others_are_made(init):
    give(init, "orders_app", "of-my-own\n")
    passwords, _ = init.run()
    assert passwords["orders_app"] == [10004, 10000, "0o440", "of-my-own\n"]
    made = [content.strip() for name, (_, _, _, content) in passwords.items() if name != "orders_app"]
    assert len(set(made)) == 4
    assert min(map(len, made)) >= 32


def test_a_password_stays_until_another_is_given(init):
    first, _ = init.run()
    again, _ = init.run()
    assert again == first
    give(init, "users_app", "another\n")
    changed, _ = init.run()
    assert changed == first | {"users_app": [10002, 10000, "0o440", "another\n"]}
    (init.given / "users_app").unlink()
    assert init.run()[0] == changed


def test_a_given_key_signs_once_and_is_kept(init):
    key = init.given / "signing_key.pem"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True, timeout=30)
    _, keys = init.run()
    assert list(keys.values()) == [[10001, 10001, "0o600", key.read_text()]]
    assert init.run()[1] == keys


def test_an_empty_password_is_refused(init):
    give(init, "orders_app", "\n")
    assert "the password in orders_app is empty" in init.refusal()


def test_a_folder_that_is_not_there_is_refused_and_not_made(init):
    init.given = init.given / "missing"
    assert "bind source path does not exist" in init.refusal()
    assert not init.given.exists()
