"""Every object is one that Kubernetes knows, field by field. Needs no cluster, and no kubectl."""

import re

import kubernetes_validate
import pytest

from tests.kubernetes.test_agreement import KUBERNETES, OBJECTS, PROJECT

OLDEST, NEWEST = "1.30", "1.34"
"""Of those that docs/kubernetes.md promises, and that the tests have a cluster of."""

NOT_KUBERNETES = {
    "Cluster": "CloudNativePG",
    "ScheduledBackup": "CloudNativePG",
    "ObjectStore": "CloudNativePG's plugin for Barman",
    "ScaledObject": "KEDA",
    "ExternalSecret": "External Secrets",
    "HTTPRoute": "Gateway API",
}
"""Kinds that come with a product, whose schemas are not here: docs/kubernetes.md says how they were checked."""

PATCHES = {"every-service.yaml", "one-shot.yaml"}  # parts of objects

NATIVE = [
    pytest.param(each, id=f"{file.relative_to(KUBERNETES)}:{each['kind']}:{each['metadata']['name']}")
    for file, each in OBJECTS
    if each["kind"] not in NOT_KUBERNETES and file.name not in PATCHES
]


@pytest.mark.parametrize("each", NATIVE)
def test_an_object_has_the_fields_of_its_kind_and_no_others(each):
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(each, version, strict=True)


def test_what_is_not_checked_so_is_in_the_examples_only():
    foreign = {each["kind"]: file.parent.name for file, each in OBJECTS if each["kind"] in NOT_KUBERNETES}
    assert set(foreign.values()) == {"examples"}
    assert foreign.keys() == NOT_KUBERNETES.keys()
    assert len(NATIVE) > 60


def test_a_field_that_is_misspelt_is_found():
    (deployment, *_) = [each.values[0] for each in NATIVE if each.values[0]["kind"] == "Deployment"]
    wrong = {**deployment, "spec": {**deployment["spec"], "minReadySecond": 3}}
    with pytest.raises(kubernetes_validate.ValidationError, match="minReadySecond"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_the_documentation_names_the_oldest_version():
    (named,) = re.findall(r"a cluster of (\S+) or newer", (PROJECT / "docs" / "kubernetes.md").read_text())
    assert named == OLDEST
