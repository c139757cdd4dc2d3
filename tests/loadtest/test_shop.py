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
