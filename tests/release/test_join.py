"""The parts of an image for each platform become one image with a tag."""

import json

import pytest

from release import join

ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")


@pytest.fixture
def built(tmp_path):
    def write(**platforms):
        files = []
        for name, metadata in platforms.items():
            files.append(tmp_path / f"{name}.json")
            files[-1].write_text(json.dumps(metadata))
        return [str(file) for file in files]

    return write


def part(digest):
    return {"containerimage.digest": digest, "image.name": "x"}


def test_an_image_is_made_of_both_platforms_parts(docker, built, capsys):
    files = built(amd64={"order-service": part(ONE), "buildx.build.warnings": {}}, arm64={"order-service": part(TWO)})
    assert join.main(["ghcr.io/o/r", "1.2.0", *files]) == 0
    name = "ghcr.io/o/r/order-service"
    assert docker.read_text().splitlines() == [
        f"buildx imagetools create --tag {name}:1.2.0 {name}@{ONE} {name}@{TWO}",
        f"buildx imagetools inspect {name}:1.2.0 --format {{{{json .Manifest}}}}",
    ]
    assert json.loads(capsys.readouterr().out).keys() == {"order-service"}


def test_a_platform_without_an_image_ends_the_release(docker, built, capsys):
    files = built(amd64={"a": part(ONE), "b": part(ONE)}, arm64={"a": part(TWO)})
    assert join.main(["ghcr.io/o/r", "1.2.0", *files]) == 1
    assert capsys.readouterr().err.endswith("arm64.json has no b, which another platform has.\n")
    assert not docker.exists(), "before anything is tagged"


@pytest.mark.parametrize(
    ("metadata", "said"), [({}, "Nothing was built."), ({"a": part("latest")}, "These have no digest: a")]
)
def test_what_is_no_build_ends_the_release(docker, built, capsys, metadata, said):
    assert join.main(["ghcr.io/o/r", "1.2.0", *built(amd64=metadata)]) == 1
    assert capsys.readouterr().err == f"{said}\n"


def test_what_the_registry_refuses_is_told(docker, built, capsys):
    assert join.main(["nowhere", "1.2.0", *built(amd64={"a": part(ONE)})]) == 1
    assert "not found" in capsys.readouterr().err
