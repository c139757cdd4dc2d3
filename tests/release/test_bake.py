"""docker-bake.hcl, the Dockerfile, Compose and the release's workflow have the same images."""

import re
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]
BAKE = (PROJECT / "docker-bake.hcl").read_text()
_SERVICES, _STAGES = (
    re.findall(r'"([\w-]+)"', names) for names in re.findall(r"matrix += \{ \w+ = \[(.*?)\] \}", BAKE)
)
TARGETS = [*(f"{name}-service" for name in _SERVICES), *_STAGES]


def test_every_image_of_compose_is_baked_under_the_same_name():
    files = [*PROJECT.glob("docker-compose*.yml"), *PROJECT.glob("observability/*/compose.yml")]
    named = {name for file in files for name in re.findall(r"SHOP_REGISTRY:-[^}]+\}/([a-z-]+):", file.read_text())}
    assert named == set(TARGETS)


def test_every_image_of_kubernetes_is_baked_under_the_same_name():
    files = (PROJECT / "deploy" / "kubernetes").rglob("*.yaml")
    named = {name for file in files for name in re.findall(r"image: shop/([a-z-]+)", file.read_text())}
    assert named < set(TARGETS)
    assert 'variable "IMAGES" { default = "shop" }' in BAKE
    assert 'variable "TAG" { default = "dev" }' in BAKE


def test_every_stage_that_is_baked_is_in_the_dockerfile():
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    assert {"service", *_STAGES} <= set(stages)


def test_labels_depend_on_the_commit_alone():
    labels = re.findall(r'"org\.opencontainers\.image\.(\w+)" += (.+)', BAKE)
    assert dict(labels).keys() == {"version", "revision", "source", "created"}
    assert not re.search(r"timestamp\(\)|formatdate", BAKE)


def test_the_release_scans_and_signs_every_image():
    jobs = yaml.safe_load((PROJECT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    for job in ("scan", "sign"):
        assert jobs[job]["strategy"]["matrix"]["image"] == TARGETS, job
