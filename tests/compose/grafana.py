"""Grafana's API, as its page in a browser uses it, without a login; and whether Grafana itself can be had here."""

import functools
import os
import re
import subprocess
import time

from tests.compose.composed import BOTH_FILES, PROJECT
from tests.dashboards.asking import EMPTY_WHEN_HEALTHY
from tests.dashboards.links import sources
from tests.fixtures.services import new_session

COMPOSE_GRAFANA = "COMPOSE_GRAFANA"
"""The variable that says whether to ask Grafana, `real` or `none`; without it, if its image can be had."""

SECONDS = 600
STEP_MS = 15_000
POINTS = 100


@functools.cache
def missing():
    """Why Grafana cannot be asked here; None if it can. A stand-in under its image's name has none of its settings."""
    if chosen := os.environ.get(COMPOSE_GRAFANA):
        assert chosen in {"real", "none"}, f"{COMPOSE_GRAFANA} is neither real nor none: {chosen}"
        return None if chosen == "real" else f"{COMPOSE_GRAFANA}={chosen}"
    image = re.search(r"image: (grafana/grafana:\S+)", (PROJECT / BOTH_FILES.split(":")[1]).read_text())[1]
    told = ""
    for prepare in ([], ["pull", "--quiet", image]):
        if prepare and (done := _docker(*prepare)).returncode:
            told = done.stderr.strip().rpartition("\n")[2]
        found = _docker("image", "inspect", image, "--format", "{{json .Config.Env}}")
        if found.returncode == 0:
            return None if "GF_PATHS_HOME=" in found.stdout else f"{image} is a stand-in here"
    return f"{image} cannot be had: {told}"


def _docker(*arguments):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=300)


class Grafana:
    """A client that is nobody: what anonymous visitors get."""

    def __init__(self, root):
        self.root = root
        self.session = new_session()

    def get(self, path, **parameters):
        return self.session.get(self.root + path, params=parameters, timeout=30)

    def post(self, path, body):
        return self.session.post(self.root + path, json=body, timeout=60)

    def read(self, path, **parameters):
        """What it answers, which has to be 200 and JSON."""
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def ask(self, query):
        """The frames that Grafana gets for a query of a panel, as the panel would."""
        answer = self.post("/api/ds/query", body_of(query, time.time()))
        return frames_of(query.fields["refId"], answer)

    def fault(self, query):
        """What is wrong with the answer to a query, None if nothing is."""
        try:
            frames = self.ask(query)
        except RefusedError as error:
            return str(error)
        if query.place in EMPTY_WHEN_HEALTHY or any(has_values(frame) for frame in frames):
            return None
        return "no values"


class RefusedError(Exception):
    """What Grafana or a data source said instead of an answer."""


def body_of(query, now):
    """What a panel sends for a query of its: a file's fields, and what is known when it is shown."""
    uids = {one["type"]: uid for uid, one in sources().items()}
    asked = {
        **query.fields,
        "datasource": {"type": query.source, "uid": uids[query.source]},
        "intervalMs": STEP_MS,
        "maxDataPoints": POINTS,
    }
    return {"queries": [asked], "from": str(int((now - SECONDS) * 1000)), "to": str(int(now * 1000))}


def frames_of(ref_id, answer):
    """The frames of an answer to one query; raises what is said of an error, wherever it stands."""
    if answer.status_code != 200:
        raise RefusedError(f"{answer.status_code} {answer.text}")
    result = answer.json()["results"].get(ref_id)
    if result is None:
        raise RefusedError(f"nothing under {ref_id}: {answer.text}")
    if result.get("error") or result.get("status", 200) >= 400:
        raise RefusedError(f"{result.get('status')} {result.get('error')}")
    frames = result.get("frames") or []
    notices = [
        notice["text"]
        for frame in frames
        for notice in (frame["schema"].get("meta") or {}).get("notices") or []
        if notice.get("severity") == "error"
    ]
    if notices:
        raise RefusedError("; ".join(notices))
    return frames


def has_values(frame):
    """Whether a frame has a row."""
    return any(frame.get("data", {}).get("values") or [])
