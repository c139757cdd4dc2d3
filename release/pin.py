"""Fix all images of Compose and Kubernetes by digest, and fill in the release in the example for Argo CD.

Usage: python -m release.pin FOLDER REGISTRY VERSION DIGESTS

Rewrites a copy of the project, in FOLDER, to a release of it: our images are those at REGISTRY, with the digests that
release/join.py printed into the file DIGESTS; other people's are looked up by their tags. Nothing is left to build.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from release.images import ReleaseError, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMPOSE = ("docker-compose*.yml", "observability/*/compose.yml")
OVERLAYS = "deploy/kubernetes/overlays"
APPLICATION = "deploy/gitops/argocd/application.yaml"

_OURS = re.compile(r"\$\{SHOP_VERSION:\+\$\{SHOP_REGISTRY:-[^}]*\}/([a-z-]+):\$\{SHOP_VERSION-\}\}")
_IMAGE = re.compile(r"^( +image: (?:&[\w-]+ )?)([\w./-]+:[\w.-]+)(?=\s|$)", re.MULTILINE)
_BUILD = re.compile(r"^ +build: .*\n", re.MULTILINE)
_ARGOCD = re.compile(r"^( +- shop/([a-z-]+)=).*$", re.MULTILINE)
_ENTRY = re.compile(r"^( +- )\{name: ([\w./-]+), (?:newName: ([\w./-]+), )?newTag: ([\w.-]+)\}", re.MULTILINE)


class Release(NamedTuple):
    """Where a version's images are, and which."""

    registry: str
    version: str
    digests: dict[str, str]

    def of(self, name: str) -> str:
        """Look up the digest of an image of ours."""
        if name not in self.digests:
            raise ReleaseError(f"No image {name} was built for this release.")
        return self.digests[name]


def compose(text: str, release: Release, look_up: Callable[[str], str]) -> str:
    """Rewrite a Compose file."""

    def ours(found: re.Match[str]) -> str:
        return f"{release.registry}/{found[1]}:{release.version}@{release.of(found[1])}"

    def theirs(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}@{look_up(found[2])}"

    text = _OURS.sub(ours, _IMAGE.sub(theirs, _BUILD.sub("", text)))
    if left := re.findall(r"^ +(?:build:|image: (?!\*)(?!.*@sha256:)).*$", text, re.MULTILINE):
        raise ReleaseError(f"These lines have no digest: {'; '.join(line.strip() for line in left)}")
    return text


def kustomization(text: str, release: Release, look_up: Callable[[str], str], *, is_overlay: bool) -> str:
    """Rewrite the images of a kustomization.

    The base and the components are complete by themselves, so they name the registry. What an overlay gets from them
    has that name already: there it is the name to match, so that an overlay can put a registry of its own beside it.
    """

    def fixed(found: re.Match[str]) -> str:
        start, name, _registry, tag = found.groups()
        if not name.startswith("shop/"):
            return f"{start}{{name: {name}, newTag: {tag}, digest: {look_up(f'{name}:{tag}')}}}"
        short = name.removeprefix("shop/")
        ours = f"{release.registry}/{short}"
        named = ours if is_overlay else f"{name}, newName: {ours}"
        return f"{start}{{name: {named}, newTag: {release.version}, digest: {release.of(short)}}}"

    text = _ENTRY.sub(fixed, text)
    if left := re.findall(r"^.*newTag:(?!.*digest: ).*$", text, re.MULTILINE):
        raise ReleaseError(f"These lines have no digest: {'; '.join(line.strip() for line in left)}")
    return text


def application(text: str, release: Release) -> str:
    """Rewrite the Argo CD Application: the repository, its tag, and the images."""

    def ours(found: re.Match[str]) -> str:
        return f"{found[1]}{release.registry}/{found[2]}@{release.of(found[2])}"

    text = re.sub(r"targetRevision: \S+", f"targetRevision: v{release.version}", _ARGOCD.sub(ours, text))
    return text.replace("github.com/OWNER/REPOSITORY", release.registry.replace("ghcr.io", "github.com"))


def pin(folder: Path, release: Release, look_up: Callable[[str], str]) -> None:
    """Rewrite all files of a copy of the project."""
    for pattern in COMPOSE:
        for file in sorted(folder.glob(pattern)):
            file.write_text(compose(file.read_text(), release, look_up))
    for file in sorted((folder / "deploy" / "kubernetes").rglob("kustomization.yaml")):
        is_overlay = file.is_relative_to(folder / OVERLAYS)
        file.write_text(kustomization(file.read_text(), release, look_up, is_overlay=is_overlay))
    for file in folder.glob(APPLICATION):
        file.write_text(application(file.read_text(), release))


def main(arguments: Sequence[str]) -> int:
    """Rewrite, or say what is wrong."""
    folder, registry, version, digests = arguments
    try:
        pin(Path(folder), Release(registry, version, json.loads(Path(digests).read_text())), cache(digest))
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
