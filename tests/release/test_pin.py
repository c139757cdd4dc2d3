"""The files of a release: every image has a digest, and nothing is built."""

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from release import pin
from release.images import ReleaseError
from tests.release.test_bake import TARGETS

PROJECT = Path(__file__).parents[2]
REGISTRY = "ghcr.io/somebody/shop"
DIGESTS = {name: f"sha256:{sha256(name.encode()).hexdigest()}" for name in TARGETS}
FILES = ["docker-compose*.yml", "observability/*/compose.yml", "deploy/**/*.yaml"]


class Loader(yaml.SafeLoader):
    """Passes over Compose's `!override` and `!reset`."""


Loader.add_multi_constructor("!", lambda loader, _tag, node: getattr(loader, f"construct_{node.id}")(node))


def asked(image):
    return f"sha256:{sha256(image.encode()).hexdigest()}"


@pytest.fixture
def folder(tmp_path):
    """A copy of what a release rewrites."""
    copy = tmp_path / "shop"
    for pattern in FILES:
        for file in PROJECT.glob(pattern):
            to = copy / file.relative_to(PROJECT)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, to)
    return copy


@pytest.fixture
def pinned(folder, tmp_path, docker):
    (tmp_path / "digests.json").write_text(json.dumps(DIGESTS))
    assert pin.main([str(folder), REGISTRY, "1.2.0", str(tmp_path / "digests.json")]) == 0
    assert docker.read_text().count("postgres:16") == 1, "each image is looked up once"
    return folder


def services(folder):
    """Every service in every Compose file: (file, name, service, the same before)."""
    for pattern in FILES[:2]:
        for file in folder.glob(pattern):
            before = yaml.load((PROJECT / file.relative_to(folder)).read_text(), Loader)["services"]
            for name, service in yaml.load(file.read_text(), Loader)["services"].items():
                yield file.name, name, service, before[name]


def test_compose_files_name_the_digest_of_every_image_and_build_nothing(pinned):
    seen = set()
    for file, name, service, before in services(pinned):
        assert "build" not in service, (file, name)
        if "build" in before:
            short = re.search(r"/([a-z-]+):\$", before["image"])[1]
            assert service["image"] == f"{REGISTRY}/{short}:1.2.0@{DIGESTS[short]}", (file, name)
            seen.add(short)
        elif "image" in before:
            assert service["image"] == f"{before['image']}@{asked(before['image'])}", (file, name)
        else:
            assert "image" not in service, (file, name)
        rest = {"build", "image"}
        assert {key: value for key, value in service.items() if key not in rest} == {
            key: value for key, value in before.items() if key not in rest
        }
    assert seen == set(TARGETS)


def test_kustomizations_name_the_digest_of_every_image(pinned):
    seen = set()
    for file in (pinned / "deploy").rglob("kustomization.yaml"):
        whole = yaml.safe_load(file.read_text())
        before = yaml.safe_load((PROJECT / file.relative_to(pinned)).read_text())
        for image, old in zip(whole.pop("images", []), before.pop("images", []), strict=True):
            short = old["name"].removeprefix("shop/")
            if short == old["name"]:
                assert image == old | {"digest": asked(f"{old['name']}:{old['newTag']}")}
                continue
            seen.add(short)
            ours = {"newTag": "1.2.0", "digest": DIGESTS[short]}
            if "overlays" in file.parts:
                assert image == {"name": f"{REGISTRY}/{short}"} | ours
            else:
                assert image == {"name": old["name"], "newName": f"{REGISTRY}/{short}"} | ours
        assert whole == before
    assert seen == set(TARGETS) - {"console"}, "the console does not run in Kubernetes"


def test_the_argo_cd_application_is_of_the_release(pinned):
    text = (pinned / pin.APPLICATION).read_text()
    source = yaml.safe_load(text)["spec"]["source"]
    assert source["repoURL"] == "https://github.com/somebody/shop"
    assert source["targetRevision"] == "v1.2.0"
    images = dict(image.split("=") for image in source["kustomize"]["images"])
    overlay = yaml.safe_load((PROJECT / source["path"] / "kustomization.yaml").read_text())
    assert images == {
        image["name"]: f"{REGISTRY}/{short}@{DIGESTS[short]}"
        for image in overlay["images"]
        if (short := image["name"].removeprefix("shop/")) != image["name"]
    }
    assert "1.0.0" not in text


def test_an_image_that_was_not_built_ends_the_release(folder, tmp_path, docker, capsys):
    few = {name: one for name, one in DIGESTS.items() if name != "payment-service"}
    (tmp_path / "digests.json").write_text(json.dumps(few))
    assert pin.main([str(folder), REGISTRY, "1.2.0", str(tmp_path / "digests.json")]) == 1
    assert capsys.readouterr().err == "No image payment-service was built for this release.\n"


@pytest.mark.parametrize(
    "line", ["    image: nginx", "    build:", "    image: $SOMETHING", "    image: localhost:5000/x"]
)
def test_a_line_that_cannot_be_pinned_ends_the_release(line):
    with pytest.raises(ReleaseError, match="have no digest"):
        pin.compose(f"services:\n  x:\n{line}\n", pin.Release(REGISTRY, "1.2.0", DIGESTS), asked)


def test_an_image_of_a_kustomization_that_cannot_be_pinned_ends_the_release():
    with pytest.raises(ReleaseError, match="have no digest"):
        pin.kustomization(
            "images:\n  - name: x\n    newTag: 1\n", pin.Release(REGISTRY, "1", DIGESTS), asked, is_overlay=False
        )


def test_an_image_that_the_registry_does_not_have_ends_the_release(folder, tmp_path, docker, capsys):
    (tmp_path / "digests.json").write_text(json.dumps(DIGESTS))
    (folder / "docker-compose.yml").write_text("services:\n  x:\n    image: nowhere/x:1.0\n")
    assert pin.main([str(folder), REGISTRY, "1.2.0", str(tmp_path / "digests.json")]) == 1
    assert "nowhere/x:1.0" in capsys.readouterr().err
