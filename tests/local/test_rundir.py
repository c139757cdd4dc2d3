import json
import re
import shutil
import stat
from pathlib import Path

import pytest

from local import rundir
from local.errors import LocalError


@pytest.mark.parametrize("full", [".", "logs"])
def test_a_full_disk_is_told_before_anything_is_started(tmp_path, monkeypatch, full):
    usage = shutil.disk_usage(tmp_path)

    def without_room(path):
        return usage._replace(free=0) if path == tmp_path / full else usage

    monkeypatch.setattr(shutil, "disk_usage", without_room)
    with pytest.raises(LocalError, match=rf"There is no room left in {re.escape(str(tmp_path / full))}: free some"):
        rundir.prepare(tmp_path)


def test_secrets_are_made_once_differ_and_are_for_the_owner_only(tmp_path):
    rundir.prepare(tmp_path / "run")
    rundir.make_secrets(tmp_path / "run", ("first", "second"))
    files = [tmp_path / "run" / "secrets" / name for name in ("first", "second")]
    before = [file.read_text() for file in files]
    assert before[0] != before[1]
    assert min(map(len, before)) > 30
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    rundir.make_secrets(tmp_path / "run", ("first", "second", "third"))
    assert [file.read_text() for file in files] == before


def test_a_stack_begins_with_all_faults_off_whatever_is_on_in_the_projects_own_file(tmp_path, monkeypatch):
    spoilt = tmp_path / "flags.json"
    content = json.loads(rundir.FLAGS.read_text())
    content["flags"]["payment-slow"]["state"] = "ENABLED"
    spoilt.write_text(json.dumps(content))
    monkeypatch.setattr(rundir, "FLAGS", spoilt)
    rundir.switch_faults_off(rundir.flags_file(tmp_path))
    written = json.loads(rundir.flags_file(tmp_path).read_text())["flags"]
    assert written.keys() == content["flags"].keys()
    assert {entry["state"] for entry in written.values()} == {"DISABLED"}


@pytest.mark.parametrize("text", ["", "[]", '{"flags": []}', '{"flags": {"a": 1}}'])
def test_a_file_of_flags_that_is_not_valid_is_told(tmp_path, monkeypatch, text):
    spoilt = tmp_path / "flags.json"
    spoilt.write_text(text)
    monkeypatch.setattr(rundir, "FLAGS", spoilt)
    with pytest.raises(LocalError, match="not a valid file of feature flags"):
        rundir.switch_faults_off(rundir.flags_file(tmp_path))


@pytest.mark.parametrize("name", ["/proc/nope", "/dev/null/nope"])
def test_a_folder_that_cannot_be_made_is_told(name):
    with pytest.raises(LocalError, match=rf"{name} cannot be used \(.+\): choose another with RUN_DIR"):
        rundir.prepare(Path(name))


def test_an_interrupted_secret_is_made_again(tmp_path):
    rundir.prepare(tmp_path / "run")
    (tmp_path / "run" / "secrets" / "first.partial").write_text("ha")
    rundir.make_secrets(tmp_path / "run", ("first",))
    assert (tmp_path / "run" / "secrets" / "first").read_text() != "ha"


def test_the_lock_is_for_one(tmp_path):
    with (
        rundir.lock(tmp_path),
        pytest.raises(LocalError, match=r"is at work here \(pid \d+\)"),
        rundir.lock(tmp_path),
    ):
        pass
    with rundir.lock(tmp_path):
        pass


def test_delete_does_not_follow_links_out_of_the_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    rundir.prepare(tmp_path / "run")
    (tmp_path / "run" / "data").symlink_to(tmp_path / "elsewhere")
    assert rundir.delete(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "elsewhere" / "file").exists()
