"""Prometheus of local mode: finds it, writes its configuration and its targets, says how to run it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from local import debian
from local.errors import LocalError
from local.parts import ending_with_parent

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = Path(__file__).resolve().parent.parent / "observability" / "prometheus"
"""The folder with the configuration and the rules."""

ALERT_FOR = "ALERT_FOR"
"""The variable that shortens the `for` of all alerts, for tests and for who wants to see one fire: `ALERT_FOR=5s`."""

OLDEST = (2, 42)
"""The oldest version that will do: the first one that knows `keep_firing_for`, and Debian 12's."""


def find() -> Path:
    """Find a Prometheus: the one that PROMETHEUS names, the system's, or one fetched from the distribution.

    Raises:
        LocalError: There is none and none can be fetched, or the one that was found cannot be used.
    """
    if found := os.environ.get("PROMETHEUS") or shutil.which("prometheus"):
        program = Path(found).absolute()
    else:
        program = debian.fetch("prometheus", "usr/bin/prometheus")
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=20)
        answer = done.stdout + done.stderr  # older ones tell their version on stderr
    except (OSError, subprocess.SubprocessError) as error:
        answer = str(error)
    version = re.search(r"prometheus, version (\d+)\.(\d+)", answer)
    if not version or (int(version[1]), int(version[2])) < OLDEST:
        said = answer.strip().partition("\n")[0] or "it says nothing"
        raise LocalError(
            f"{program} cannot be used ({said}):"
            f" set PROMETHEUS to the path of a Prometheus {'.'.join(map(str, OLDEST))} or newer."
        )
    return program


def render(conf_dir: Path, targets: Mapping[str, int]) -> Path:
    """Write the configuration, the rules and the targets into a folder of their own.

    Args:
        conf_dir: The folder, made if missing. Nothing else may live there.
        targets: The port of each job.

    Returns:
        The main file, for `command`.

    Raises:
        LocalError: ALERT_FOR is no duration.
    """
    patience = os.environ.get(ALERT_FOR, "")
    if not re.fullmatch(r"(\d+(ms|s|m|h))?", patience):
        raise LocalError(f"{ALERT_FOR} must be a duration such as 5s, not {patience!r}.")
    (conf_dir / "rules").mkdir(parents=True, exist_ok=True)
    for old in (conf_dir / "rules").iterdir():
        old.unlink()  # a rule that was deleted must not go on
    for old in conf_dir.glob("targets-*.json"):
        old.unlink()  # a replica of a scenario that was killed
    for rules in sorted((SOURCE / "rules").glob("*.yml")):
        text = rules.read_text(encoding="utf-8")
        if patience:
            text = re.sub(r"^( +(?:keep_firing_)?for: ).+$", rf"\g<1>{patience}", text, flags=re.MULTILINE)
        (conf_dir / "rules" / rules.name).write_text(text, encoding="utf-8")
    groups = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"job": job, "service_name": job}} for job, port in targets.items()
    ]
    (conf_dir / "targets.json").write_text(json.dumps(groups, indent=2) + "\n", encoding="utf-8")
    return Path(shutil.copy(SOURCE / "local.yml", conf_dir))


def promtool() -> Path:
    """Find the promtool that came with the Prometheus that `find` finds; packages put them side by side.

    Raises:
        LocalError: There is none.
    """
    program = find().with_name("promtool")
    if not program.exists():
        raise LocalError(f"There is no promtool beside {program.with_name('prometheus')}.")
    return program


def command(program: Path, conf: Path, data: Path, port: int) -> list[str]:
    """Say how to run it, in the foreground, with flags that 2.x and 3.x both take.

    Retention is given here because 2.x does not know it in the configuration.

    Args:
        program: What `find` gave.
        conf: What `render` gave.
        data: The folder for its data.
        port: Where it listens, on 127.0.0.1.

    Returns:
        The arguments, the program first.
    """
    return ending_with_parent(
        "TERM",
        str(program),
        f"--config.file={conf}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=15d",
        "--storage.tsdb.retention.size=1GB",
        "--enable-feature=exemplar-storage",
        "--web.cors.origin=",  # by default a page of anybody's may read all; no origin matches this
        "--log.format=json",
    )
