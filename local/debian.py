"""Programs from the distribution's packages, without root: downloaded, unpacked into a cache, run from there.

apt checks signatures and hashes as always. Nothing is installed: no maintainer script runs, no service of the
system is started or changed, and no file of the system's package manager is written.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from local.errors import LocalError

CACHE_NAME = "devopsmicroservices"
_DOWNLOAD_SECONDS = 180
_APT_OPTIONS = (
    "-q",
    "-o", "Acquire::http::Timeout=15",
    "-o", "Acquire::https::Timeout=15",
    "-o", "Acquire::Retries=2",
    "-o", "APT::Sandbox::User=root",  # as root, apt would else change to a user who cannot enter our folder
)  # fmt: skip


def fetch(package: str, executable: str) -> Path:
    """Make a program of a Debian or Ubuntu package available in the user's cache.

    The first call needs the network, takes a few seconds and says so; later ones find what is there, and never
    look for a newer one: who wants that deletes the cache. Several processes at once do not disturb each other.

    Args:
        package: Name of the binary package, for example `nginx`.
        executable: The program's path inside the package, for example `usr/sbin/nginx`.

    Returns:
        The program's path. Other files of the package stand beside it, as in the package.

    Raises:
        LocalError: No apt here, no network, or no such package.
    """
    root = _cache() / package
    program = root / executable
    if not program.is_file():
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise LocalError(
                f"{program.name} is not installed: install it with your package manager"
                f" (for example `dnf install {package}`)."
            )
        print(f"  fetching {package} of the distribution into {root}", flush=True)
        _unpack(package, executable, root)
    return program


def _cache() -> Path:
    """Name the cache of this distribution's release: a home folder may be shared, or outlive an upgrade."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    system = "-".join((release.get("ID", "unknown"), release.get("VERSION_ID", "rolling"), platform.machine()))
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / CACHE_NAME / system


def _unpack(package: str, executable: str, root: Path) -> None:
    """Fill `root` in one step: somebody else sees all of it or nothing."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".fetch-", ignore_cleanup_errors=True) as scratch:
        work = Path(scratch)
        try:
            archive = _download(package, work)
            _run(["dpkg-deb", "-x", str(archive), str(work / "root")], work)
        except (subprocess.SubprocessError, OSError) as error:
            raise LocalError(
                f"Could not fetch {package} ({_reason(error)}):"
                f" check the network, or install it with `apt-get install {package}`."
            ) from error
        if not (work / "root" / executable).is_file():
            raise LocalError(f"The package {package} of this distribution has no {executable}.")
        try:
            (work / "root").rename(root)
        except OSError:
            if (root / executable).is_file():  # somebody else was faster
                return
            # What is there lacks the program: an older state of the cache, or a hand in it.
            root.rename(work / "replaced")
            (work / "root").rename(root)


def _download(package: str, work: Path) -> Path:
    """Download the package, by the system's lists or, where these are missing or old, by own ones."""
    command = ["apt-get", *_APT_OPTIONS, "download", package]
    try:
        _run(command, work)
    except subprocess.CalledProcessError:
        environment = _own_lists(work)
        # An unreachable source that has nothing to do with us makes this fail too: the download decides.
        _run(["apt-get", *_APT_OPTIONS, "update"], work, environment, check=False)
        _run(command, work, environment)
    return next(work.glob("*.deb"))


def _own_lists(work: Path) -> dict[str, str]:
    """Configure apt as the system has it, but with lists and caches in `work`, and without hooks.

    Hooks are left out because they would act on the system: the ones in Docker's images delete its caches.
    """
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    dump = _run(["apt-config", "dump"], work).stdout
    lines = [line for line in dump.splitlines() if "-Invoke" not in line and not line.startswith("Dir::Cache")]
    lines += [
        f'Dir::State::lists "{work}/lists";',
        f'Dir::Cache "{work}/cache";',
        'Dir::Etc::main "/dev/null";',  # both are in the dump
        'Dir::Etc::parts "/dev/null";',
    ]
    configuration = work / "apt.conf"
    configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"APT_CONFIG": str(configuration)}


def _run(
    command: list[str], work: Path, environment: dict[str, str] | None = None, *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=work,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=check,
        timeout=_DOWNLOAD_SECONDS,
    )


def _reason(error: subprocess.SubprocessError | OSError) -> str:
    """Take the last thing that the failed program said, which is the most telling."""
    lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
    return lines[-1].removeprefix("E: ").rstrip(".") if lines else "no reason given"
