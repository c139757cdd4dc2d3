"""The shop in a Kubernetes cluster, driven as a person would: by kubectl, and by requests from inside the cluster."""

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from tests.fixtures.services import Client, eventually

PROJECT = Path(__file__).parents[2]
LOCAL = PROJECT / "deploy" / "kubernetes" / "overlays" / "local"
SERVICES = ("auth-service", "user-service", "product-service", "order-service", "payment-service")
NAMESPACES = ("shop", "shop-telemetry", "shop-agents")
LOG_PARTS = [
    *(("shop", "deployment", name) for name in (*SERVICES, "nginx")),
    ("shop", "statefulset", "order-db"),
    ("shop-telemetry", "deployment", "gateway-telemetry"),
    *(("shop-telemetry", "statefulset", name) for name in ("collector", "embedded-backend", "prometheus")),
    ("shop-agents", "daemonset", "collector-agent"),
]
"""What writes to a log: its namespace, kind and name."""
NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
VISITORS = "shop-visitors"
"""The namespace of the pod that requests come from."""

VISITOR = f"""
apiVersion: v1
kind: Namespace
metadata:
  name: {VISITORS}
  labels: {{pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Pod
metadata: {{name: visitor, namespace: {VISITORS}}}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 0
  securityContext: {{runAsNonRoot: true, runAsUser: 10099, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: visitor
      image: shop/product-service:dev
      imagePullPolicy: IfNotPresent
      command: [python, -c, "import time; time.sleep(1e6)"]
      securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
"""


class NoClusterError(Exception):
    """One sentence that says what is missing."""


class Cluster:
    """kubectl, with the current context.

    Args:
        command: How to call it.
    """

    def __init__(self, command):
        program, *arguments = shlex.split(command)
        if "/" in program:
            program = str((PROJECT / program).resolve())
        self._kubectl = [program, *arguments]

    def check(self):
        """See whether there is a cluster.

        Raises:
            NoClusterError: There is none that answers.
        """
        try:
            done = self._finish(["version", "--output", "json", "--request-timeout", "10s"], seconds=30)
        except FileNotFoundError:
            raise NoClusterError(
                "There is no kubectl: install it, or say where it is with KUBECTL=/path/to/kubectl"
            ) from None
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2]
            raise NoClusterError(
                f"kubectl reaches no cluster; start one (docs/kubernetes.md), or set KUBECONFIG: {reason}"
            )

    def check_it_has_all(self):
        """See whether it has what the shop cannot be without.

        Raises:
            NoClusterError: Something is missing.
        """
        classes = self.get("storageclasses")["items"]
        if not any(
            one["metadata"].get("annotations", {}).get("storageclass.kubernetes.io/is-default-class") == "true"
            for one in classes
        ):
            raise NoClusterError(
                "The cluster has no default StorageClass, so there would be no volume for the database: mark one as the"
                " default (docs/kubernetes.md)"
            )

    def check_it_is_empty(self):
        """See whether it has nothing that the tests would delete.

        Raises:
            NoClusterError: It has.
        """
        there = {item["metadata"]["name"] for item in self.get("namespaces")["items"]}
        if ours := [name for name in (*NAMESPACES, VISITORS) if name in there]:
            raise NoClusterError(
                f"The cluster has the namespaces {', '.join(ours)} already, and these tests would delete them: delete"
                " them yourself first, or use another cluster"
            )

    def check_images(self, *namespaces):
        """See whether the pods of namespaces wait for images that the cluster cannot get.

        Raises:
            NoClusterError: Some do.
        """
        missing = {
            waiting["image"]
            for namespace in namespaces
            for pod in self.get("-n", namespace, "pods")["items"]
            for kind in ("initContainerStatuses", "containerStatuses")
            for waiting in pod["status"].get(kind, [])
            if waiting["state"].get("waiting", {}).get("reason") in NO_IMAGE
        }
        if missing:
            raise NoClusterError(
                f"The cluster has not got, and cannot pull, the images {', '.join(sorted(missing))}: build them"
                " with `make images` and load them into it (docs/kubernetes.md)"
            )

    def kubectl(self, *arguments, seconds=60, given=None):
        """Run kubectl; what it printed to stdout. Fails with all that it printed."""
        done = self._finish(arguments, seconds, given)
        assert done.returncode == 0, (
            f"status {done.returncode}: kubectl {shlex.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        )
        return done.stdout

    def refused(self, *arguments, seconds=60, given=None):
        """Run kubectl, which has to fail; what it printed to stderr."""
        done = self._finish(arguments, seconds, given)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def attempt(self, *arguments, seconds=60, given=None):
        """Run kubectl, which may fail."""
        return self._finish(arguments, seconds, given)

    def get(self, *arguments):
        """An object, or a list of them, from JSON."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def keep(self, folder):
        """Write into files how the shop's objects are, what happened to them, and what each pod said."""
        for name in NAMESPACES:
            (folder / f"{name}.txt").write_text(
                self.kubectl("-n", name, "get", "all,persistentvolumeclaims", "--output", "wide")
                + self.kubectl("-n", name, "get", "events", "--sort-by", ".lastTimestamp")
                + self.kubectl("-n", name, "describe", "pods")
            )
            for pod in self.get("-n", name, "pods")["items"]:
                pod_name = pod["metadata"]["name"]
                for when, options in (("", ()), (".before", ("--previous",))):
                    arguments = ("-n", name, "logs", pod_name, "--all-containers", "--prefix", "--timestamps", *options)
                    if said := self.attempt(*arguments).stdout:
                        (folder / f"{pod_name}{when}.log").write_text(said)

    def start(self, *arguments, **options):
        """Start kubectl; its process."""
        return subprocess.Popen([*self._kubectl, *arguments], text=True, **options)

    def _finish(self, arguments, seconds, given=None):
        try:
            return subprocess.run(
                [*self._kubectl, *arguments], input=given, capture_output=True, text=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"not done within {seconds} s: kubectl {shlex.join(arguments)}") from error


class ShopInKubernetes:
    """`overlays/local`, applied to a cluster.

    Attributes:
        seconds: From the empty cluster to the first order.
    """

    def __init__(self, cluster):
        self.cluster = cluster
        self._forwards = []

    def up(self):
        """Apply it, and wait until an order is placed."""
        began = time.monotonic()
        self.cluster.kubectl("apply", "-k", str(LOCAL), seconds=120)
        eventually(self._seeded, 400, pause=0.5)
        self.wait_until_ready(200)
        self.connect()
        self.order(self.login())
        self.seconds = time.monotonic() - began
        for part in (
            "statefulset/collector",
            "statefulset/embedded-backend",
            "statefulset/prometheus",
            "deployment/gateway-telemetry",
        ):
            self.cluster.kubectl("-n", "shop-telemetry", "rollout", "status", part, "--timeout=200s", seconds=210)
        self.cluster.kubectl(
            "-n", "shop-agents", "rollout", "status", "daemonset/collector-agent", "--timeout=200s", seconds=210
        )
        self.cluster.kubectl("apply", "-f", "-", given=VISITOR)
        self.cluster.kubectl(
            "-n", VISITORS, "wait", "--for=condition=ready", "pod/visitor", "--timeout=100s", seconds=110
        )

    def _seeded(self):
        """Whether the last of the Jobs is done. What will never come is said at once."""
        if self.cluster.get("-n", "shop", "job", "seed").get("status", {}).get("succeeded"):
            return True
        self.cluster.check_images(*NAMESPACES)
        return False

    def connect(self):
        """Find a way to the gateway from this machine. It ends with the pod that it leads to."""
        self.gateway = Client(self.forward("shop", "nginx", 80))

    def down(self):
        """Delete all of it."""
        for forward in self._forwards:
            forward.terminate()
            forward.wait(10)
        self._forwards.clear()
        self.cluster.kubectl(
            "delete", "namespace", *NAMESPACES, VISITORS, "--ignore-not-found", "--timeout=200s", seconds=210
        )

    def wait_until_ready(self, seconds=120):
        """Wait until every Deployment of the shop, and its database, has all its pods ready."""
        self.cluster.kubectl(
            "-n", "shop", "rollout", "status", "statefulset/order-db", f"--timeout={seconds}s", seconds=seconds + 10
        )
        for name in (*SERVICES, "nginx"):
            self.cluster.kubectl(
                "-n", "shop", "rollout", "status", f"deployment/{name}", f"--timeout={seconds}s", seconds=seconds + 10
            )

    def forward(self, namespace, service, port):
        """Make a port of a Service one of this machine; its URL."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            ours = free.getsockname()[1]
        process = self.cluster.start(
            "-n", namespace, "port-forward", f"service/{service}", f"{ours}:{port}", stdout=subprocess.DEVNULL
        )
        self._forwards.append(process)

        def listens():
            assert process.poll() is None, f"kubectl port-forward of {service} has ended"
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", ours)) == 0

        eventually(listens, 20, pause=0.1)
        return f"http://127.0.0.1:{ours}"

    def pods(self, name):
        """The names of the pods of a part that are not about to end."""
        found = self.cluster.get("-n", "shop", "pods", "-l", f"app.kubernetes.io/name={name}")["items"]
        return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def share_processes(self):
        """Let each container of the shop share its pod's process namespace, so that all of it can be stopped or killed.

        Otherwise its main process is the first of the namespace, which takes no such signal from inside.
        """
        wanted = {"spec": {"template": {"spec": {"shareProcessNamespace": True}}}}
        for part in ("statefulset/order-db", *(f"deployment/{name}" for name in (*SERVICES, "nginx"))):
            self.cluster.kubectl("-n", "shop", "patch", part, "--patch", json.dumps(wanted))
        self.wait_until_ready()
        for name in (*SERVICES, "nginx"):
            eventually(lambda name=name: len(self.pods(name)) == 1, 60, pause=0.5)

    def signal(self, pod, container, name):
        """Send a signal to every process of a container at once."""
        # -1 is all that this user may signal, but the one that asks.
        self.cluster.kubectl("-n", "shop", "exec", pod, "-c", container, "--", "sh", "-c", f"kill -{name} -1")

    def evict(self, pod):
        """Ask for the eviction of a pod, as a drain of its node does: whether the budget allows it."""
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": "shop"},
        }
        path = f"/api/v1/namespaces/shop/pods/{pod}/eviction"
        told = self.cluster.attempt("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
        if told.returncode == 0:
            return True
        assert "Cannot evict pod as it would violate the pod's disruption budget" in told.stderr, told.stderr
        return False

    def login(self):
        answer = self.gateway.post("/auth/login", {"username": "admin", "password": "password"})
        assert answer.status_code == 200, answer.text
        return answer.json()["token"]

    def order(self, token):
        """Place an order that has to be paid: (its id, its trace's id)."""
        answer = self.gateway.post("/orders/", {"product_id": 1}, token)
        assert (answer.status_code, answer.json()["status"]) == (201, "PAID"), answer.text
        return answer.json()["id"], answer.headers["traceresponse"].split("-")[1]

    def query(self, statement):
        """Ask the order database as its owner; what is before the last statement has no answer."""
        *before, last = statement.split("; ")
        wrapped = f"SELECT coalesce(json_agg(q), '[]') FROM ({last}) q"
        psql = ["psql", "-U", "orders_user", "-d", "orders_user", "-qAt", "-v", "ON_ERROR_STOP=1"]
        for command in (*before, wrapped):
            psql += ["-c", command]
        answer = self.cluster.kubectl("-n", "shop", "exec", "order-db-0", "--", *psql)
        return json.loads(answer, object_pairs_hook=lambda pairs: tuple(value for _, value in pairs))

    def inside(self, code, *arguments, seconds=60):
        """Run Python in the visitor's pod; what it printed."""
        return self.cluster.kubectl(
            "-n", VISITORS, "exec", "visitor", "--", "python", "-c", code, *arguments, seconds=seconds
        )

    @contextmanager
    def visited(self, *options):
        """Let visitors in during the block, from inside the cluster; what they saw is there after it.

        Args:
            options: Of visitor.py: `--insist` sends an order until it is answered, `--eager` rests little.
        """
        code = (Path(__file__).parent / "visitor.py").read_text()
        with tempfile.TemporaryFile("w+") as complaints:
            process = self.cluster.start(
                *("-n", VISITORS, "exec", "-i", "visitor", "--", "python", "-c", code),
                *options,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
            )
            seen = SimpleNamespace(answers={}, placed={}, surprises=[], failures=[])

            def say(word):
                """Ask the visitors for something, and wait for their line."""
                process.stdin.write(f"{word}\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    complaints.seek(0)
                    raise AssertionError(f"the visitors have gone: {complaints.read()[-2000:]}")
                return json.loads(line)

            try:
                eventually(lambda: say("count") > 100, 60, pause=0.2)
                yield seen
                after = say("count")
                eventually(lambda: say("count") > after + 100, 60, pause=0.2)
                for name, value in say("end").items():
                    setattr(seen, name, value)
            finally:
                process.stdin.close()
                process.wait(30)
                process.stdout.close()


def tell(request, text):
    """Print a line for the person who runs the tests."""
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        sys.stdout.write(f"\n{text}\n")


def program():
    """How to call kubectl."""
    return os.environ.get("KUBECTL") or "kubectl"
