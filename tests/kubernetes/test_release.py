"""A release's kustomizations, as kubectl reads them: every object names its images by digest."""

import os
import re
import shutil
import subprocess

import pytest

from release.pin import Release, pin
from tests.release.test_pin import DIGESTS, PROJECT, REGISTRY, asked

pytestmark = pytest.mark.kubernetes


@pytest.mark.parametrize("overlay", ["local", "local-full", "production"])
def test_kubectl_makes_objects_with_digests_of_an_overlay(overlay, tmp_path):
    copy = tmp_path / "shop"
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns(".venv", ".git", ".run", "__pycache__", ".*_cache"))
    pin(copy, Release(REGISTRY, "1.2.0", DIGESTS), asked)
    command = [
        os.environ.get("KUBECTL") or "kubectl",
        "kustomize",
        str(copy / "deploy" / "kubernetes" / "overlays" / overlay),
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    images = set(re.findall(r"^ +(?:- )?image: (\S+)$", made, re.MULTILINE))
    assert {image for image in images if not re.fullmatch(r"\S+:[\w.-]+@sha256:[0-9a-f]{64}", image)} == set()
    assert f"{REGISTRY}/order-service:1.2.0@{DIGESTS['order-service']}" in images
