"""The cost of the stack itself: generous limits on what bench/budget.yaml allows it."""

import json

import pytest

from tests.bench.command import run_bench

SLOWER = 4  # a machine that does other things too
LARGER = 1.3  # another allocator, another kernel


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_start_time_and_memory_are_near_their_budget(tmp_path):
    done = run_bench(tmp_path, "budget", "--seconds", "3", "--noisy", "--name", "test")
    assert done.returncode == 0, done.stdout + done.stderr
    parts = {part["name"]: part for part in json.loads((tmp_path / "test.json").read_text())["parts"]}
    assert {"order-db", "order-service", "nginx", "embedded-backend", "prometheus", "all"} <= parts.keys()
    for name, part in parts.items():
        for field, slack in (("start_seconds", SLOWER), ("idle_mb", LARGER), ("loaded_mb", LARGER)):
            if f"{field}_budget" in part:
                assert 0 <= part[field] <= slack * part[f"{field}_budget"], f"{name}: {field}"
