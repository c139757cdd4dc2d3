"""What a release's page offers, made of a small project by release/files.sh."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
import yaml

from tests.release.test_pin import DIGESTS, PROJECT, REGISTRY

COMPOSE = """\
services:
  order-service:
    image: ${SHOP_VERSION:+${SHOP_REGISTRY:-registry.example/shop}/order-service:${SHOP_VERSION-}}
    build: {context: ., target: service}
  order-db:
    image: postgres:16.15-bookworm
"""


@pytest.fixture
def project(tmp_path, docker):
    """A project at its tag v1.2.0, with the release's programs."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(COMPOSE)
    (folder / ".gitignore").write_text(".run/\nrelease\ndigests.json\n")
    (folder / "release").symlink_to(PROJECT / "release")
    (folder / "digests.json").write_text(json.dumps({"order-service": DIGESTS["order-service"]}))
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Place orders"], ["tag", "v1.2.0"]):
        subprocess.run(["git", "-C", folder, *identity, *command], check=True)
    return folder


def make(project):
    done = attempt(project)
    assert done.returncode == 0, done.stderr
    return project / ".run" / "release" / "files"


def attempt(project):
    command = ["release/files.sh", REGISTRY, "1.2.0", "digests.json"]
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        command, cwd=project, env=environment, check=False, capture_output=True, text=True, timeout=60
    )


def test_the_archive_runs_the_images_of_the_release(project):
    files = make(project)
    with tarfile.open(files / "shop-1.2.0.tar.gz") as archive:
        assert "shop-1.2.0/docker-compose.yml" in archive.getnames()
        services = yaml.safe_load(archive.extractfile("shop-1.2.0/docker-compose.yml"))["services"]
    assert services["order-service"] == {"image": f"{REGISTRY}/order-service:1.2.0@{DIGESTS['order-service']}"}
    assert "@sha256:" in services["order-db"]["image"]
    assert "build:" in (project / "docker-compose.yml").read_text(), "the checkout stays as it is"


def test_there_is_an_sbom_for_each_platform_and_a_checksum_for_each_file(project):
    files = make(project)
    assert {file.name for file in files.glob("*.spdx.json")} == {
        "order-service.amd64.spdx.json",
        "order-service.arm64.spdx.json",
    }
    lines = (files / "sha256sums.txt").read_text().splitlines()
    summed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert summed == {
        f"./{file.relative_to(files)}": hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files.rglob("*")
        if file.is_file() and file.name != "sha256sums.txt"
    }
    assert "- Place orders (" in (project / ".run" / "release" / "notes.md").read_text()


def test_the_same_commit_gives_the_same_files(project):
    first = (make(project) / "sha256sums.txt").read_text()
    assert (make(project) / "sha256sums.txt").read_text() == first


@pytest.mark.parametrize("failing", ["git archive*", "tar *-c*", "tar *-x*", "sha256sum *"])
def test_an_archive_that_was_not_written_whole_ends_the_release(project, docker, failing):
    """It would get a checksum that is right for what there is of it."""
    program, _, arguments = failing.partition(" ")
    stub = docker.with_name(program)
    stub.write_text(
        f'#!/bin/sh\ncase "$*" in {arguments}) status=3 ;; esac\n{shutil.which(program)} "$@"; exit $status\n'
    )
    stub.chmod(0o755)
    assert attempt(project).returncode != 0
    assert not (project / ".run" / "release" / "notes.md").exists() or program == "sha256sum"


def test_an_image_without_an_sbom_ends_the_release(project, docker):
    docker.with_name("docker").write_text("#!/bin/sh\necho '{}'\n")
    command = [sys.executable, "-m", "release.sboms", REGISTRY, "digests.json", "."]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "order-service@sha256:" in done.stderr
    assert done.stderr.endswith("has no SBOM for linux/amd64, linux/arm64.\n")
