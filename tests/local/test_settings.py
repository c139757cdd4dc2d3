import pytest

from local.errors import LocalError
from local.settings import PROJECT, Settings


def test_defaults_are_the_documented_ports():
    settings = Settings.read({})
    ports = [value for name, value in settings.environment().items() if name.endswith("_PORT")]
    services = ["8080", "5001", "5002", "5003", "5004", "5005", "5433"]
    assert ports == [*services, "4318", "16686", "3100", "9090", "9145", "3000"]
    assert settings.run_dir == PROJECT / ".run"


def test_each_setting_is_the_variable_of_its_name(tmp_path):
    wishes = {
        "RUN_DIR": str(tmp_path),
        "TELEMETRY": "off",
        "START_TIMEOUT_SECONDS": "7",
        "GRACEFUL_TIMEOUT_SECONDS": "8",
    }
    wishes |= {
        name: str(number) for number, name in enumerate(Settings.read({}).environment(), 2000) if "_PORT" in name
    }
    assert Settings.read(wishes).environment() == wishes


def test_an_empty_variable_is_an_unset_one():
    assert Settings.read({"GATEWAY_PORT": "", "RUN_DIR": ""}) == Settings.read({})


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1", "80.5", "٨٠٨٠", "1_000", " 80"])
def test_a_port_is_a_number_in_its_bounds(text):
    with pytest.raises(LocalError, match="GATEWAY_PORT must be a whole number from 1 to 65535, not"):
        Settings.read({"GATEWAY_PORT": text})


@pytest.mark.parametrize(("text", "wanted"), [("on", True), ("OFF", False), ("true", True), ("0", False)])
def test_telemetry_is_a_switch(text, wanted):
    assert Settings.read({"TELEMETRY": text}).telemetry is wanted
    with pytest.raises(LocalError, match="TELEMETRY must be on or off, not 'maybe'"):
        Settings.read({"TELEMETRY": "maybe"})


def test_the_timeout_has_bounds_of_its_own():
    with pytest.raises(LocalError, match="START_TIMEOUT_SECONDS must be a whole number from 1 to 3600"):
        Settings.read({"START_TIMEOUT_SECONDS": "3601"})


def test_two_parts_cannot_share_a_port():
    with pytest.raises(LocalError, match="AUTH_PORT and ORDER_PORT are both 5001"):
        Settings.read({"ORDER_PORT": "5001"})


def test_what_a_running_stack_was_started_with_can_be_read_back(tmp_path):
    settings = Settings.read({"RUN_DIR": str(tmp_path), "GATEWAY_PORT": "8888", "TELEMETRY": "off"})
    (tmp_path / "conf").mkdir()
    settings.store()
    assert Settings.of_running(tmp_path) == settings
