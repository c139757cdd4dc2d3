"""Join what was built for each platform into images with a tag.

Usage: python -m release.join REGISTRY VERSION BUILT...

BUILT is what `docker buildx bake --metadata-file` wrote, one file for each platform. Prints JSON: name -> digest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from release.images import DIGEST, ReleaseError, digest, join

if TYPE_CHECKING:
    from collections.abc import Sequence


def parts(built: Sequence[Path]) -> dict[str, list[str]]:
    """Read which digests each image has, one for each platform."""
    found = [_digests(json.loads(path.read_text())) for path in built]
    names = {name for one in found for name in one}
    for path, one in zip(built, found, strict=True):
        if missing := names - one.keys():
            raise ReleaseError(f"{path} has no {', '.join(sorted(missing))}, which another platform has.")
    if not names:
        raise ReleaseError("Nothing was built.")
    return {name: [one[name] for one in found] for name in sorted(names)}


def _digests(metadata: dict[str, dict[str, str]]) -> dict[str, str]:
    """Find each target's digest; bake writes other things beside them, such as warnings."""
    found = {
        name: one["containerimage.digest"]
        for name, one in metadata.items()
        if isinstance(one, dict) and "containerimage.digest" in one
    }
    if wrong := [name for name, one in found.items() if not DIGEST.fullmatch(one)]:
        raise ReleaseError(f"These have no digest: {', '.join(wrong)}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Join, and print the digests."""
    registry, version, *built = arguments
    digests = {}
    try:
        for name, each in parts([Path(path) for path in built]).items():
            image = f"{registry}/{name}:{version}"
            join(image, each)
            digests[name] = digest(image)
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(digests, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
