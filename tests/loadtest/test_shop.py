"""Load goes to this machine, unless somebody says otherwise."""

import pytest

from loadtest.errors import LoadError
from loadtest.settings import LoadSettings
from loadtest.shop import find, refuse_remote


@pytest.mark.parametrize("host", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080", "http://127.9.9.9"])
def test_this_machine_may_be_loaded(host):
    refuse_remote(host)


@pytest.mark.parametrize("host", ["http://192.0.2.1", "http://[2001:db8::1]", "http://0.0.0.0", "http://10.0.0.1:80"])
def test_another_machine_is_refused(host, tmp_path):
    with pytest.raises(LoadError, match="--allow-remote"):
        find(LoadSettings(host=host), {"RUN_DIR": str(tmp_path)})
    assert find(LoadSettings(host=host, allow_remote=True), {"RUN_DIR": str(tmp_path)}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "nonsense", "http://no-such-host.invalid"])
def test_what_is_no_address_is_refused_in_a_sentence(host):
    with pytest.raises(LoadError, match=r"no address|not known"):
        refuse_remote(host)


def test_without_a_local_stack_it_is_the_one_in_docker_compose(tmp_path):
    shop = find(LoadSettings(), {"RUN_DIR": str(tmp_path), "GATEWAY_PORT": "8081"})
    assert (shop.host, shop.prometheus) == ("http://127.0.0.1:8081", "http://127.0.0.1:9090")


def test_a_database_elsewhere_is_asked_where_the_variables_say(database):
    shop = find(LoadSettings(), database.env())
    assert shop.ask("SELECT to_json(current_database()::text)") == database.name


def test_of_another_gateway_neither_the_books_nor_the_view_of_the_shop_here_are_taken(tmp_path):
    shop = find(LoadSettings(host="http://127.0.0.1:8081"), {"RUN_DIR": str(tmp_path), "GATEWAY_PORT": "8080"})
    assert (shop.ask, shop.prometheus, shop.targets) == (None, None, None)
    books, view = shop.notes
    assert "DATABASE_HOST" in books
    assert "--prometheus" in view


def test_what_another_gateway_has_can_be_named(database):
    settings = LoadSettings(host="http://127.0.0.1:8081", prometheus="http://127.0.0.1:1")
    shop = find(settings, database.env() | {"GATEWAY_PORT": "8080"})
    assert shop.ask("SELECT to_json(1)") == 1
    assert (shop.prometheus, shop.notes) == ("http://127.0.0.1:1", ())


def test_the_shop_here_may_be_named_too(tmp_path):
    for host in ("http://localhost:8080/", "http://127.0.0.1:8080"):
        shop = find(LoadSettings(host=host), {"RUN_DIR": str(tmp_path), "GATEWAY_PORT": "8080"})
        assert shop.ask
        assert (shop.prometheus, shop.notes) == ("http://127.0.0.1:9090", ())


@pytest.mark.parametrize(
    ("wrong", "name"), [({"DATABASE_PORT": "five"}, "DATABASE_PORT"), ({}, "DATABASE_PASSWORD_FILE")]
)
def test_a_wrong_database_is_told_in_a_sentence(wrong, name, tmp_path):
    with pytest.raises(LoadError, match=name):
        find(LoadSettings(), {"RUN_DIR": str(tmp_path), "DATABASE_HOST": "db.invalid", **wrong})
