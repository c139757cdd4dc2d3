"""The Argo CD Application says nothing that Argo CD does not know, and names what is there."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.kubernetes.test_agreement import KUSTOMIZATIONS, OBJECTS, PROJECT

TEXT = (PROJECT / "deploy" / "gitops" / "argocd" / "application.yaml").read_text()
APPLICATION = yaml.safe_load(TEXT)
SOURCE = APPLICATION["spec"]["source"]
SCHEMA = json.loads(Path(__file__).with_name("argocd-application.json").read_text())


def test_it_has_the_fields_of_an_application_and_no_others():
    jsonschema.validate(APPLICATION, SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["syncPolicy"]["automated"].update(selfheal=True),
        lambda spec: spec["source"]["kustomize"].update(image=[]),
        lambda spec: spec["syncPolicy"].update(retry=5),
        lambda spec: spec.pop("destination"),
    ],
)
def test_a_mistake_is_found(change):
    wrong = copy.deepcopy(APPLICATION)
    change(wrong["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_it_gives_each_image_of_ours_in_its_overlay_a_name_that_can_be_pulled():
    overlay = KUSTOMIZATIONS[PROJECT / SOURCE["path"] / "kustomization.yaml"]
    images = dict(image.split("=") for image in SOURCE["kustomize"]["images"])
    assert images.keys() == {image["name"] for image in overlay["images"]}
    (version,) = {image.rpartition(":")[2] for image in images.values()}
    assert SOURCE["targetRevision"] == f"v{version}"
    registry = SOURCE["repoURL"].replace("https://github.com", "ghcr.io")
    assert images == {name: f"{registry}/{name.removeprefix('shop/')}:{version}" for name in images}


def test_it_makes_each_job_anew():
    (patch,) = SOURCE["kustomize"]["patches"]
    assert patch["target"] == {"kind": "Job"}
    assert any(each["kind"] == "Job" for _, each in OBJECTS)
    annotations = yaml.safe_load(patch["patch"])["metadata"]["annotations"]
    assert annotations == {
        "argocd.argoproj.io/hook": "Sync",
        "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
    }


def test_it_goes_where_the_overlay_goes():
    assert APPLICATION["spec"]["destination"]["namespace"] == "shop"


def test_the_manual_tells_what_is_to_be_changed_in_it():
    manual = (PROJECT / "docs" / "kubernetes.md").read_text()
    section = re.search(r"^## GitOps\n(.+?)^## ", manual, re.MULTILINE | re.DOTALL)[1]
    assert "deploy/gitops/argocd/application.yaml" in section
    assert "OWNER/REPOSITORY" in section
    assert SOURCE["path"].rpartition("/")[2] in section
