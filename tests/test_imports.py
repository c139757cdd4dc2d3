"""What our packages import of each other."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    path.name: path
    for path in (
        ROOT / "local",
        ROOT / "loadtest",
        ROOT / "observability",
        ROOT / "scenarios",
        ROOT / "services" / "servicekit",
        *ROOT.glob("services/*/src/*_service"),
    )
}


def modules(package):
    """The files of a package by the names of their modules."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(source):
    """What a module imports, also where only the type checker looks. `from a import b` may mean the module a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import: here they are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def circle(sources):
    """A circle among modules, as a list of names; empty if there is none."""
    graph = {name: (set(imported(source)) & sources.keys()) - {name} for name, source in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_modules_of_a_package_need_each_other(package):
    sources = {name: path.read_text() for name, path in modules(PACKAGES[package]).items()}
    assert len(sources) > 2
    assert not circle(sources)


def test_a_circle_is_found_however_it_is_imported():
    assert circle({"p.a": "import p.b", "p.b": "from p import c", "p.c": "def f():\n    from p.a import x"})
    assert not circle({"p.a": "import p.b", "p.b": "from p import c", "p.c": "import os"})


@pytest.mark.parametrize("package", sorted(PACKAGES.keys() - {"loadtest"}))
def test_a_package_imports_nothing_from_the_tests(package):
    for path in PACKAGES[package].rglob("*.py"):
        assert "tests" not in {name.partition(".")[0] for name in imported(path.read_text())}, path
