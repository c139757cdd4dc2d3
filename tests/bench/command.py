"""The command `python -m bench`, as a person runs it."""

import os
import subprocess
import sys

from tests.fixtures.database import PROJECT


def run_bench(results, *arguments):
    """Run it, with a folder for its results."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=PROJECT,
        env={**os.environ, "BENCH_RESULTS": str(results)},
        capture_output=True,
        text=True,
        check=False,
    )
