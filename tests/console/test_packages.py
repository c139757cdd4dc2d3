"""The console's image has the packages of requirements/console.txt and no others."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

PROJECT = Path(__file__).parents[2]
WITHOUT = """
import sys

class Lacking:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in sys.argv:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Lacking)
import observability.console.__main__
"""


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_it_starts_without_the_packages_that_its_image_lacks():
    text = (PROJECT / "requirements" / "console.txt").read_text()
    has = {plain(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    lacks = [
        module
        for module, names in packages_distributions().items()
        if not has & {plain(name) for name in names} and module not in {"observability", "scenarios", "local"}
    ]
    assert {"rich", "psutil"} <= set(lacks)
    path = f"{PROJECT}:{PROJECT / 'services'}"
    command = [sys.executable, "-P", "-c", WITHOUT, *lacks]
    done = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
