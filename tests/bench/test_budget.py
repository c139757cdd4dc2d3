"""The cost of the stack itself: generous limits on what bench/budget.yaml allows it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SLOWER = 4  # a machine that does other things too
LARGER = 1.3  # another allocator, another kernel


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_start_time_and_memory_are_near_their_budget(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bench", "budget", "--seconds", "3", "--noisy", "--name", "test"],
        cwd=PROJECT,
        env={**os.environ, "BENCH_RESULTS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = {part["name"]: part for part in json.loads((tmp_path / "test.json").read_text())["parts"]}
    assert {"order-db", "order-service", "nginx", "embedded-backend", "prometheus", "all"} <= parts.keys()
    for name, part in parts.items():
        for field, slack in (("start_seconds", SLOWER), ("idle_mb", LARGER), ("loaded_mb", LARGER)):
            if f"{field}_budget" in part:
                assert 0 <= part[field] <= slack * part[f"{field}_budget"], f"{name}: {field}"
