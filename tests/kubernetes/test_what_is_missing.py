"""What a cluster lacks is said in one sentence, at once. Needs no cluster: a script stands in for kubectl."""

import json

import pytest

from tests.kubernetes.cluster import Cluster, NoClusterError


@pytest.fixture
def answering(tmp_path):
    """Make a cluster of which kubectl knows just this."""

    def make(items, status=0, complaint=""):
        (tmp_path / "answer").write_text(json.dumps({"items": items}))
        (tmp_path / "complaint").write_text(complaint)
        program = tmp_path / "kubectl"
        program.write_text(f"#!/bin/sh\ncat {tmp_path}/answer\ncat {tmp_path}/complaint >&2\nexit {status}\n")
        program.chmod(0o755)
        return Cluster(str(program))

    return make


def storage(*, default):
    annotations = {"storageclass.kubernetes.io/is-default-class": default}
    return {"metadata": {"name": "standard", "annotations": annotations}}


@pytest.mark.parametrize("classes", [[], [{"metadata": {"name": "standard"}}], [storage(default="false")]])
def test_a_cluster_without_a_default_storage_class(answering, classes):
    with pytest.raises(NoClusterError, match=r"^The cluster has no default StorageClass, .*docs/kubernetes\.md\)$"):
        answering(classes).check_it_has_all()


def test_a_cluster_with_one(answering):
    answering([storage(default="false"), storage(default="true")]).check_it_has_all()


def test_a_cluster_in_which_there_is_a_shop(answering):
    there = [{"metadata": {"name": name}} for name in ("default", "shop", "shop-agents")]
    with pytest.raises(NoClusterError, match=r"^The cluster has the namespaces shop, shop-agents already, "):
        answering(there).check_it_is_empty()
    answering(there[:1]).check_it_is_empty()


def pod(reason, kind="containerStatuses"):
    return {"status": {kind: [{"image": "shop/x:dev", "state": {"waiting": {"reason": reason}}}]}}


@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"])
def test_a_cluster_that_cannot_pull(answering, reason, kind):
    with pytest.raises(NoClusterError, match=r"images shop/x:dev: build them with `make images`"):
        answering([pod(reason, kind)]).check_images("shop")


def test_pods_that_only_begin_lack_no_image(answering):
    running = {"status": {"containerStatuses": [{"image": "shop/x:dev", "state": {"running": {}}}]}}
    answering([pod("ContainerCreating"), running, {"status": {}}]).check_images("shop")


def test_no_cluster_and_no_kubectl(answering):
    with pytest.raises(NoClusterError, match=r"reaches no cluster; .*: connection refused$"):
        answering([], 1, "warning\nconnection refused").check()
    with pytest.raises(NoClusterError, match="There is no kubectl"):
        Cluster("/nowhere/kubectl").check()
