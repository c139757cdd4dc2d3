"""The stack that is looked at: the one that runs, wherever it is."""

import json
import os
from pathlib import Path

import pytest

from tests.fixtures.services import Client

PROJECT = Path(__file__).parents[2]
SERVICES = {"auth": 5001, "user": 5002, "product": 5003, "order": 5004, "payment": 5005}


class RunningStack:
    """A running stack; the environment says where, as for `make up` (GATEWAY_PORT, RUN_DIR, ...)."""

    def __init__(self, environment):
        self.gateway = Client(f"http://localhost:{environment.get('GATEWAY_PORT', 8080)}")
        self.services = {
            name: Client(f"http://localhost:{environment.get(f'{name.upper()}_PORT', port)}")
            for name, port in SERVICES.items()
        }
        self._logs = Path(environment.get("RUN_DIR") or PROJECT / ".run") / "logs"

    def log_lines(self, service, trace_id):
        """A service's log lines of a trace."""
        lines = (self._logs / f"{service}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if trace_id in line]


@pytest.fixture(scope="session")
def running():
    return RunningStack(os.environ)
