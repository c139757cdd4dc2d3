"""Programs from the distribution's packages: with stand-ins for apt-get and dpkg-deb, and once with the real ones."""

import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from local import debian, nginx
from local.errors import LocalError

PROGRAM = "usr/sbin/thing"

# An apt-get that works only once lists of its own are there, and a dpkg-deb that unpacks one program.
APT_GET = """#!/bin/sh
echo "$*" >> "$CALLS"
[ -n "$NETWORK_DOWN" ] && { echo "E: Could not resolve 'deb.example'" >&2; exit 100; }
case "$*" in
  *update*) touch "$(sed -n 's/^Dir::State::lists "\\(.*\\)";$/\\1/p' "$APT_CONFIG")/list" ;;
  *download*)
    [ -n "$APT_CONFIG" ] || [ -n "$LISTS" ] || { echo "E: Unable to locate package thing" >&2; exit 100; }
    touch thing_1_all.deb ;;
esac
"""
APT_CONFIG = """#!/bin/sh
echo 'Dir::Cache "/var/cache/apt";'
echo 'Acquire::http::Proxy "http://proxy.example/";'
echo 'APT::Update::Post-Invoke:: "rm -rf /";'
"""
DPKG_DEB = """#!/bin/sh
mkdir -p "$3/usr/sbin"
printf '#!/bin/sh\\n' > "$3/$UNPACKS"
chmod +x "$3/$UNPACKS"
"""


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system with stand-ins on its PATH; gives the file of the calls of apt-get."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("apt-get", APT_GET), ("apt-config", APT_CONFIG), ("dpkg-deb", DPKG_DEB)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a cache"))
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("UNPACKS", PROGRAM)
    monkeypatch.setenv("LISTS", "yes")
    for name in ("NETWORK_DOWN", "APT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_a_program_is_fetched_once_and_the_person_hears_of_it(system, capsys):
    program = debian.fetch("thing", PROGRAM)
    assert program.is_file()
    assert program.parts[-3:] == ("usr", "sbin", "thing")
    assert debian.fetch("thing", PROGRAM) == program
    assert capsys.readouterr().out.count("fetching thing") == 1
    assert len(system.read_text().splitlines()) == 1


def test_without_package_lists_own_ones_are_fetched_with_the_systems_settings_but_not_its_hooks(system, monkeypatch):
    monkeypatch.delenv("LISTS")
    seen = []
    run = subprocess.run

    def spy(command, **options):
        if "update" in command:
            seen.append(Path(options["env"]["APT_CONFIG"]).read_text())
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", spy)
    assert debian.fetch("thing", PROGRAM).is_file()
    (configuration,) = seen
    assert "http://proxy.example/" in configuration
    assert "Invoke" not in configuration
    assert "/var/cache/apt" not in configuration
    assert [line.split()[-1] for line in system.read_text().splitlines()] == ["thing", "update", "thing"]


def test_a_failure_says_why_and_leaves_nothing(system, monkeypatch, tmp_path):
    monkeypatch.setenv("NETWORK_DOWN", "yes")
    with pytest.raises(
        LocalError, match=r"Could not fetch thing \(Could not resolve 'deb.example'\): .*apt-get install"
    ):
        debian.fetch("thing", PROGRAM)
    assert [path for path in (tmp_path / "a cache").rglob("*") if path.is_file()] == []
    assert system.read_text()


def test_a_package_without_the_program_is_refused(system, monkeypatch, tmp_path):
    monkeypatch.setenv("UNPACKS", "usr/sbin/other")
    with pytest.raises(LocalError, match="has no usr/sbin/thing"):
        debian.fetch("thing", PROGRAM)
    assert not list((tmp_path / "a cache").rglob("other"))
    assert system.read_text()


def test_what_an_interrupted_hand_left_in_the_cache_is_replaced(system):
    program = debian.fetch("thing", PROGRAM)
    program.unlink()
    assert debian.fetch("thing", PROGRAM) == program
    assert program.is_file()
    assert len(system.read_text().splitlines()) == 2


def test_several_at_once_all_get_the_program(system):
    found = []
    threads = [threading.Thread(target=lambda: found.append(debian.fetch("thing", PROGRAM))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert found[0].is_file()
    assert [path.name for path in found[0].parents[3].iterdir()] == ["thing"]
    assert system.read_text()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("apt-get"), reason="not a Debian")
def test_the_real_nginx_runs_from_the_cache_also_when_the_system_has_no_lists(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    empty = tmp_path / "apt.conf"
    (tmp_path / "lists").mkdir()
    empty.write_text(f'Dir::State::lists "{tmp_path}/lists";\n')
    monkeypatch.setenv("APT_CONFIG", str(empty))
    monkeypatch.delenv("NGINX", raising=False)
    monkeypatch.setattr(nginx, "_SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    program = nginx.find()
    assert nginx.version(program) >= nginx.OLDEST
    assert list((tmp_path / "lists").iterdir()) == []
