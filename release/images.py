"""Ask for images' digests, and join the platforms' parts of an image, by `docker buildx imagetools`."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PLATFORMS = ("linux/amd64", "linux/arm64")


class ReleaseError(Exception):
    """What is wrong with what a release is made of, in a sentence."""


def digest(image: str) -> str:
    """Look up the digest of what an image's name stands for, on all its platforms."""
    # Not {{.Manifest.Digest}}, for which buildx prints what it prints without a format.
    told = json.loads(_imagetools("inspect", image, "--format", "{{json .Manifest}}"))["digest"]
    if not DIGEST.fullmatch(told):
        raise ReleaseError(f"The registry has no digest for {image}: {told!r}")
    return str(told)


def sboms(image: str) -> dict[str, Any]:
    """Fetch the SBOM of each platform of an image, as SPDX: platform -> document."""
    told = json.loads(_imagetools("inspect", image, "--format", "{{json .SBOM}}")) or {}
    found = {platform: one["SPDX"] for platform, one in told.items() if platform in PLATFORMS and one.get("SPDX")}
    if missing := [platform for platform in PLATFORMS if platform not in found]:
        raise ReleaseError(f"{image} has no SBOM for {', '.join(missing)}.")
    return found


def join(image: str, parts: list[str]) -> None:
    """Give an image's name to the parts for each platform together, with their SBOMs and provenance."""
    repository = image.rpartition(":")[0]
    _imagetools("create", "--tag", image, *(f"{repository}@{part}" for part in parts))


def _imagetools(*arguments: str) -> str:
    command = ["docker", "buildx", "imagetools", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
