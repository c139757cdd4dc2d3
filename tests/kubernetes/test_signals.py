"""The processes of a pod are killed: its container starts again, in the same pod, and the books balance."""

from types import SimpleNamespace

import pytest

from tests.fixtures.books import balance
from tests.fixtures.services import eventually
from tests.kubernetes.cluster import SERVICES, tell

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]


@pytest.mark.parametrize("part", [*SERVICES, "nginx", "order-db"])
def test_a_killed_container_starts_again_in_its_pod_and_every_order_is_answered_in_the_end(signalled, request, part):
    (pod,) = signalled.pods(part)

    def state():
        (container,) = [
            one
            for one in signalled.cluster.get("-n", "shop", "pod", pod)["status"]["containerStatuses"]
            if one["name"] == part
        ]
        return container

    restarts = state()["restartCount"]
    with signalled.visited("--insist") as seen:
        signalled.signal(pod, part, "KILL")
        eventually(lambda: state()["restartCount"] == restarts + 1 and state()["ready"], 90, pause=0.5)
    assert state()["lastState"]["terminated"]["exitCode"] == 137
    failed = {answer: times for answer, times in seen.answers.items() if not answer.endswith((" 200", " 201", " 202"))}
    tell(request, f"SIGKILL of {part}: {sum(seen.answers.values())} requests, failed: {failed or 0}")
    assert signalled.pods(part) == [pod]
    balance(signalled, [SimpleNamespace(placed=seen.placed, surprises=seen.surprises)])
