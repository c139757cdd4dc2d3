"""The gateway of local mode: finds nginx, renders the configuration of `nginx/`, says how to run it."""

from __future__ import annotations

import grp
import os
import re
import resource
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from local import debian
from local.errors import LocalError
from local.parts import ending_with_parent

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = Path(__file__).resolve().parent.parent / "nginx"
"""The folder with the configuration, for both modes."""

OLDEST = (1, 18)
"""The oldest version of nginx that will do (Ubuntu 22.04's and Debian 11's)."""

STOP_SIGNAL = "QUIT"
"""Stop gracefully: requests in flight are finished. TERM cuts them off."""

STOP_SECONDS = 25
"""How long that may take: longer than the configuration's `worker_shutdown_timeout`."""

DEFAULTS = {
    "GATEWAY_LISTEN": "127.0.0.1:8080",
    "GATEWAY_TRACING": "log",
    "GATEWAY_SAMPLE_PERCENT": "100",
    "ACCESS_LOG": "/dev/stdout",
    "LOGIN_RATE": "10r/s",
    "CLIENT_CONNECTIONS": "80",
    "CLIENT_TIMEOUT": "10s",
    "PROXY_READ_TIMEOUT": "15s",
    "AUTH_UPSTREAM": "127.0.0.1:5001",
    "USER_UPSTREAM": "127.0.0.1:5002",
    "PRODUCT_UPSTREAM": "127.0.0.1:5003",
    "ORDER_UPSTREAM": "127.0.0.1:5004",
    "PAYMENT_UPSTREAM": "127.0.0.1:5005",
}
"""The variables of the configuration, and what they are in local mode."""

WORKER_CONNECTIONS = 4096
"""How many connections each worker may have, where the system allows it; as in Compose."""

TRACING = ("log", "off")
"""The values of GATEWAY_TRACING here. `module` needs a module that no distribution's nginx has."""

# A value becomes a part of the configuration, where `;` or a space would begin something new.
_VALUE = re.compile(r"[A-Za-z0-9_.:/\[\]-]+")
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")  # not on every user's PATH


def find() -> Path:
    """Find an nginx: the one that NGINX names, the system's, or one fetched from the distribution.

    Returns:
        The program's path.

    Raises:
        LocalError: There is none and none can be fetched, or the one that was found cannot be used.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    if found := os.environ.get("NGINX") or shutil.which("nginx", path=path):
        program = Path(found).absolute()
    else:
        program = _fetch()
    version(program)
    return program


def _fetch() -> Path:
    try:
        return debian.fetch("nginx", "usr/sbin/nginx")
    except LocalError as error:
        try:
            # Until Debian 11 and Ubuntu 22.04 `nginx` is an empty package that depends on this one.
            return debian.fetch("nginx-core", "usr/sbin/nginx")
        except LocalError:
            raise error from None


def version(program: Path) -> tuple[int, ...]:
    """Ask a program for its version.

    Raises:
        LocalError: It is no nginx that runs here, or too old; the sentence tells what it said.
    """
    try:
        answer = subprocess.run([program, "-v"], capture_output=True, text=True, check=False, timeout=10).stderr
    except (OSError, subprocess.SubprocessError) as error:
        answer = str(error)
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", answer)
    if not found or tuple(map(int, found.groups())) < OLDEST:
        raise LocalError(
            f"{program} cannot be used ({answer.strip() or 'it says nothing'}):"
            f" set NGINX to the path of an nginx {'.'.join(map(str, OLDEST))} or newer."
        )
    return tuple(map(int, found.groups()))


def render(conf_dir: Path, settings: Mapping[str, str] | None = None) -> Path:
    """Write the configuration into a folder of its own, which also takes nginx's pid file.

    Args:
        conf_dir: The folder, made if missing. Nothing else may live there.
        settings: Values for variables of `DEFAULTS`; the others keep their default.

    Returns:
        The main file, for `command`.

    Raises:
        LocalError: A variable that does not exist, a value that cannot be one, or an unknown GATEWAY_TRACING.
    """
    values = {**DEFAULTS, **(settings or {})}
    for name, value in values.items():
        if name not in DEFAULTS:
            raise LocalError(f"The gateway has no setting {name}: it has {', '.join(DEFAULTS)}.")
        if not _VALUE.fullmatch(value):
            raise LocalError(f"{name} cannot be {value!r}: letters, digits and _ . : / [ ] - only.")
    if values["GATEWAY_TRACING"] not in TRACING:
        raise LocalError(f"GATEWAY_TRACING must be one of {', '.join(TRACING)}.")

    (conf_dir / "tmp").mkdir(parents=True, exist_ok=True)
    for folder in ("gateway", "tracing"):
        shutil.copytree(SOURCE / folder, conf_dir / folder, dirs_exist_ok=True)
    values |= _connections()
    for name in ("templates/gateway.conf", "local/upstreams.conf", "local/nginx.conf"):
        template = (SOURCE / f"{name}.template").read_text(encoding="utf-8")
        text = re.sub(r"\$\{([A-Z_]+)\}", lambda match: values[match[1]], template)
        (conf_dir / Path(name).name).write_text(text, encoding="utf-8")
    return conf_dir / "nginx.conf"


def _connections() -> dict[str, str]:
    """Fit the number of connections to the hard limit of open files, which only root can raise.

    nginx would start with more than that, but say so as an alert, and run out of files instead of connections.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 2 * WORKER_CONNECTIONS
    if most != resource.RLIM_INFINITY:
        files = min(files, most)
    return {"OPEN_FILES": str(files), "WORKER_CONNECTIONS": str(files // 2)}


def command(program: Path, conf: Path) -> list[str]:
    """Say how to run the gateway: in the foreground, with the access log on stdout and nginx's own on stderr.

    It ends gracefully when its parent dies. A master that is itself killed with SIGKILL leaves workers behind,
    which keep the port: they are in its process group.

    Args:
        program: What `find` gave.
        conf: What `render` gave.

    Returns:
        The arguments, the program first. Stop it with `STOP_SIGNAL`.
    """
    orders = "daemon off;"
    if os.geteuid() == 0:
        # Else workers would change to `nobody`, which not every container allows. They run as who started
        # them, like the services.
        orders += f" user root {grp.getgrgid(0).gr_name};"
    arguments = ["env", "TZ=UTC", str(program), "-p", f"{conf.parent}/", "-c", str(conf), "-g", orders]
    if version(program) >= (1, 19, 5):
        arguments += ["-e", "stderr"]  # before the configuration is read; older ones have a built-in path for that
    return ending_with_parent(STOP_SIGNAL, *arguments)
