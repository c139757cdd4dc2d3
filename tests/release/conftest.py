import os
import stat

import pytest

SHIM = """\
#!/bin/sh
echo "$*" >>"$(dirname "$0")/asked"
case "$*" in
    *nowhere*) echo "ERROR: $5: not found" >&2; exit 1 ;;
    *.SBOM*) echo '{"linux/amd64": {"SPDX": {"name": "a"}}, "linux/arm64": {"SPDX": {"name": "b"}}}' ;;
    *inspect*) printf '{"digest": "sha256:%s"}\\n' "$(printf %s "$4" | sha256sum | cut -d ' ' -f 1)" ;;
esac
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """A `docker` that knows the digest of every image that is not called nowhere; the file with what it was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(SHIM)
    (folder / "docker").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "asked"
