"""Write the SBOMs of a release's images as files.

Usage: python -m release.sboms REGISTRY DIGESTS FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from release.images import ReleaseError, sboms

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Write a file for each image and platform, such as order-service.arm64.spdx.json."""
    registry, digests, folder = arguments
    try:
        for name, digest in json.loads(Path(digests).read_text(encoding="utf-8")).items():
            for platform, document in sboms(f"{registry}/{name}@{digest}").items():
                file = Path(folder) / f"{name}.{platform.rpartition('/')[2]}.spdx.json"
                file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
