"""The OpenAPI documents against the running system, through the gateway: schemathesis."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXAMPLES = str(max(25, int(os.environ.get("FUZZ_EXAMPLES", "0")) // 10))


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["auth", "users", "products", "orders", "payments"])
def test_generated_requests_get_what_the_document_promises(stack, admin, prefix, tmp_path):
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(HERE / "schemathesis.toml")),
            *("run", f"{stack.gateway.root}/{prefix}/openapi.json", "--url", stack.gateway.root),
            *("--header", f"Authorization: Bearer {admin}", "--checks", "all", "--max-examples", EXAMPLES),
            *("--seed", "1", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    assert " generated, " in done.stdout
    sys.stdout.write(done.stdout)  # shown with `pytest -rP`: how many cases there were
