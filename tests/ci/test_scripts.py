"""The scripts in the workflows, run here with stubs of what they call."""

import hashlib
import json
import os
import re
import subprocess

import pytest

from tests.ci.test_workflows import PROJECT, STEPS

DIGEST = "sha256:" + "1" * 64
GITHUB = {
    "GITHUB_ACTOR": "somebody",
    "GITHUB_REPOSITORY": "Some-Body/Shop",
    "GITHUB_REF": "refs/tags/v1.2.0",
    "GITHUB_REF_NAME": "v1.2.0",
    "GITHUB_RUN_ID": "7",
    "GH_TOKEN": "a-token",
    "TOKEN": "a-token",
    "IMAGE": "order-service",
}


@pytest.fixture
def run(tmp_path):
    """Run a step's script in a folder, with stubs; (its output, what the stubs were called with, a line a call)."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name in ("docker", "cosign", "gh", "kind", "kubectl", "curl"):
        (stubs / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n[ "$1" != login ] || cat >>{tmp_path}/stdin\n'
        )
        (stubs / name).chmod(0o755)
    folder = tmp_path / "folder"
    folder.mkdir()

    def script(text, **environment):
        (tmp_path / "output").touch()
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
            cwd=folder,
            env={
                **os.environ,
                **GITHUB,
                "GITHUB_OUTPUT": str(tmp_path / "output"),
                "PATH": f"{stubs}:{os.environ['PATH']}",
            }
            | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        calls = tmp_path / "calls"
        return done, calls.read_text().splitlines() if calls.exists() else []

    def answers(name, text, when="", status=0):
        """Let a stub print a text, when its arguments begin so."""
        with (stubs / name).open("a") as stub:
            stub.write(f'case "$*" in "{when}"*) printf "%s" "{text}"; exit {status} ;; esac\n')

    script.answers = answers
    script.folder = folder
    script.output = tmp_path / "output"
    script.stdin = tmp_path / "stdin"
    return script


def text_of(name):
    """The script of the step of that name, or that begins so."""
    (text,) = {step["run"] for _, step in STEPS if step.get("name") == name or step.get("run", "").startswith(name)}
    return text


def write(run, path, what):
    to = run.folder / path
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(what if isinstance(what, str) else json.dumps(what))


def test_the_scanner_gets_the_image_that_was_built_and_no_login(run):
    write(run, "built/built-amd64.json", {"order-service": {"containerimage.digest": DIGEST}})
    done, calls = run(text_of("Pull the image, and log out"))
    assert done.returncode == 0, done.stderr
    image = f"ghcr.io/some-body/shop/order-service@{DIGEST}"
    assert calls == [
        "docker login ghcr.io --username somebody --password-stdin",
        f"docker pull --quiet {image}",
        f"docker tag {image} scanned:here",
        "docker logout ghcr.io",
    ]
    assert run.stdin.read_text() == "a-token\n"


def test_an_image_that_was_not_built_is_not_scanned_in_silence(run):
    write(run, "built/built-amd64.json", {})
    done, calls = run(text_of("Pull the image, and log out"))
    assert done.returncode != 0
    assert calls == []


def test_the_image_that_the_tag_names_is_signed_and_verified_as_the_manual_says(run):
    write(run, ".run/release/digests.json", {"order-service": DIGEST})
    done, calls = run(text_of("Sign, and verify as a user would"))
    assert done.returncode == 0, done.stderr
    image = f"ghcr.io/some-body/shop/order-service@{DIGEST}"
    identity = "https://github.com/Some-Body/Shop/.github/workflows/release.yml@refs/tags/v1.2.0"
    issuer = "https://token.actions.githubusercontent.com"
    assert calls == [
        f"cosign sign --yes {image}",
        f"cosign verify {image} --certificate-oidc-issuer {issuer} --certificate-identity {identity}",
    ]
    assert run.output.read_text() == f"name=ghcr.io/some-body/shop/order-service\ndigest={DIGEST}\n"


def test_the_manual_names_a_cosign_that_finds_the_signatures():
    (version,) = {step["with"]["cosign-release"] for _, step in STEPS if "cosign-installer" in step.get("uses", "")}
    manual = (PROJECT / "docs" / "compose.md").read_text()
    assert f"Use cosign {version[1]}: " in manual[: manual.index("cosign verify ")]


# Which final release is the newest is told by their versions: it need not be the one that was made last.
@pytest.mark.parametrize(("tag", "kind"), [("v1.2.0", ""), ("v1.2.0-rc.1", "--prerelease ")])
def test_the_releases_page_has_all_files(run, tag, kind):
    for name in ("shop-1.2.0.tar.gz", "digests.json", "sha256sums.txt"):
        write(run, f".run/release/files/{name}", "x")
    done, calls = run(text_of("Make the release's page"), GITHUB_REF_NAME=tag)
    assert done.returncode == 0, done.stderr
    (call,) = calls
    assert call.startswith(
        f"gh release create {tag} --verify-tag {kind}--title {tag} --notes-file .run/release/notes.md "
    )
    assert {word for word in call.split() if word.startswith(".run/release/files/")} == {
        f".run/release/files/{name}" for name in ("shop-1.2.0.tar.gz", "digests.json", "sha256sums.txt")
    }


@pytest.mark.parametrize(
    ("out", "status"),
    [("", 0), ("v1.1.0\nv1.2.0-rc.1\nv11.2.0", 0), ("v1.3.0\nv1.2.0\nv1.1.0", 1), ("v1x2.0", 0)],
)
def test_a_version_that_is_out_gets_no_other_images(run, out, status):
    run.answers("gh", out)
    done, calls = run(text_of("Refuse a version that is out"))
    assert done.returncode == status, done.stderr
    assert calls == ["gh api --paginate repos/Some-Body/Shop/releases --jq .[].tag_name"]
    assert ("choose the next version" in done.stdout) == bool(status)


def test_a_release_is_not_made_if_nobody_can_say_what_is_out(run):
    run.answers("gh", "", status=4)
    done, _ = run(text_of("Refuse a version that is out"))
    assert done.returncode == 4


NIGHT = json.dumps({"bench": {"result": "failure"}, "kills": {"result": "success"}, "fuzz": {"result": "cancelled"}})
TOLD = "Not successful: bench, fuzz (https://github.com/Some-Body/Shop/actions/runs/7)."


@pytest.mark.parametrize(
    ("open_issue", "call"),
    [
        ("", f"gh issue create --label nightly --title The night's run failed --body {TOLD}"),
        ("12", f"gh issue comment 12 --body {TOLD}"),
    ],
)
def test_a_night_that_failed_is_one_open_issue(run, open_issue, call):
    run.answers("gh", open_issue, when="issue list")
    done, calls = run(text_of("Open an issue, or add to the one that is open"), NEEDS=NIGHT)
    assert done.returncode == 0, done.stderr
    assert calls[-1] == call
    assert "gh label create nightly --force --description The night's run failed" in calls[:-1]


def test_the_nights_page_is_shown(run):
    write(run, ".run/page/index.md", "# What the night's jobs found\n")
    summary = run.folder / "summary"
    done, _ = run(text_of("cat "), GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 0, done.stderr
    assert summary.read_text() == "# What the night's jobs found\n"


def test_there_is_a_folder_for_the_nights_results(run):
    done, _ = run(text_of("mkdir "))
    assert done.returncode == 0
    assert (run.folder / ".run" / "nightly").is_dir()


MANIFEST = "kind: Deployment\n"


def kind(run, manifest):
    """Run local/kind.sh, which expects MANIFEST, where the network has another; the calls, and what was applied."""
    text = (PROJECT / "local" / "kind.sh").read_text()
    (pinned,) = re.findall(r"^manifest=([0-9a-f]{64})$", text, re.MULTILINE)
    write(run, "kind.sh", text.replace(pinned, hashlib.sha256(MANIFEST.encode()).hexdigest()))
    run.answers("docker", "shop/order-service:dev\nshop/console:dev", when="images")
    with (run.folder.parent / "bin" / "curl").open("a") as stub:
        stub.write(f'while [ "$1" != --output ]; do shift; done; printf "%s" "{manifest}" >"$2"\n')
    with (run.folder.parent / "bin" / "kubectl").open("a") as stub:
        stub.write('[ "$1" != apply ] || cp "$3" applied\n')
    done, calls = run("sh kind.sh shop")
    applied = run.folder / "applied"
    return done, calls, applied.read_text() if applied.exists() else None


def test_kind_gets_all_images_and_the_metrics_server_that_was_pinned(run):
    done, calls, applied = kind(run, MANIFEST)
    assert done.returncode == 0, done.stderr
    assert "kind load docker-image --name shop shop/order-service:dev shop/console:dev" in calls
    assert applied == MANIFEST
    assert any("--fail" in call.split() for call in calls if call.startswith("curl "))
    patch = "\n".join(calls)
    assert re.search(r'containers/0/image", "value": "registry\.k8s\.io/\S+@sha256:[0-9a-f]{64}"', patch)
    assert not list(run.folder.parent.glob("tmp*")), "nothing is left"


def test_another_manifest_than_the_pinned_one_is_not_applied(run):
    done, calls, applied = kind(run, MANIFEST + "kind: ClusterRoleBinding\n")
    assert done.returncode != 0
    assert applied is None
    assert not [call for call in calls if call.startswith("kubectl ")]


def test_a_cluster_gets_no_metrics_server_before_the_images_are_built(run):
    write(run, "kind.sh", (PROJECT / "local" / "kind.sh").read_text())
    done, calls = run("sh kind.sh shop")
    assert (done.returncode, done.stderr) == (1, "There are no images: make images\n")
    assert len(calls) == 1


@pytest.fixture
def backends(run):
    """Run local/backends.sh with a docker whose images have an entry point; (its end, the calls)."""

    def take(compose, entry="/bin/{}", cp=0):
        write(run, "docker-compose.observability.yml", compose)
        docker = run.folder.parent / "bin" / "docker"
        with docker.open("a") as stub:
            stub.write(
                'case "$*" in\n'
                f'    "cp "*) eval "to=\\${{$#}}"; echo program >"$to"; exit {cp} ;;\n'
                '    "create "*) echo "of-$2" ;;\n'
                f'    *Entrypoint*) name=${{5##*/}}; echo "{entry.format("${name%%:*}")}" ;;\n'
                "esac\n"
            )
        return run(f"sh {PROJECT / 'local' / 'backends.sh'} there")

    return take


IMAGES = [
    "jaegertracing/jaeger:2.1",
    "otel/opentelemetry-collector-contrib:0.1",
    "grafana/loki:3.1",
    "prom/prometheus:v3",
]
COMPOSE = "services:\n" + "".join(f"  x{n}:\n    image: {image}\n" for n, image in enumerate(IMAGES))


def test_the_tests_programs_come_out_of_the_images_that_compose_names(run, backends):
    done, calls = backends(COMPOSE)
    assert (done.returncode, done.stdout) == (0, "there\n"), done.stderr
    programs = {file.name: file.stat().st_mode & 0o777 for file in (run.folder / "there").iterdir()}
    assert programs == dict.fromkeys(["jaeger", "otelcol", "loki", "prometheus", "promtool"], 0o755)
    assert [call.split()[-1] for call in calls if call.startswith("docker create ")] == [*IMAGES, IMAGES[-1]]
    assert "docker cp --quiet --follow-link of-prom/prometheus:v3:/bin/promtool there/.promtool.new" in calls
    assert sum(call.startswith("docker rm ") for call in calls) == 5, "no container is left"


def test_an_image_that_compose_does_not_name_is_told(backends):
    done, _ = backends(COMPOSE.replace("grafana/loki", "grafana/other"))
    assert done.returncode == 1
    assert done.stderr == "docker-compose.observability.yml names no image grafana/loki.\n"


def test_what_was_not_copied_whole_does_not_pass_for_a_program(run, backends):
    done, calls = backends(COMPOSE, cp=1)
    assert done.returncode == 1
    assert [file.name for file in (run.folder / "there").iterdir() if not file.name.startswith(".")] == []
    assert calls[-1] == "docker rm of-jaegertracing/jaeger:2.1"


@pytest.fixture
def repository(run):
    """A repository with a lock file and the script, whose origin is a folder."""
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    origin = run.folder.parent / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", origin], check=True)
    write(run, "requirements/services.txt", "flask==1\n")
    for command in (
        ["init", "-q", "-b", "main"],
        ["config", f"url.{origin}.insteadOf", "https://x-access-token:a-token@github.com/Some-Body/Shop.git"],
        ["add", "-A"],
        ["commit", "-qm", "Begin"],
    ):
        subprocess.run(["git", "-C", run.folder, *identity, *command], check=True)
    (run.folder / "release").mkdir()
    (run.folder / "release" / "propose.sh").symlink_to(PROJECT / "release" / "propose.sh")
    return origin


def test_changed_lock_files_become_a_pull_request_that_says_whether_the_tests_passed(run, repository):
    write(run, "requirements/services.txt", "flask==2\n")
    done, calls = run(text_of("release/propose.sh"), RESULT="success", GITHUB_REF_NAME="main")
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["git", "-C", repository, "show", "updates/python:requirements/services.txt"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "flask==2\n"
    assert calls[0].startswith("gh pr list --head updates/python ")
    assert calls[1].startswith("gh pr create --head updates/python --base main --title Take newer Python packages")
    assert "with these versions: success" in "\n".join(calls)


def test_where_nothing_is_newer_there_is_no_pull_request(run, repository):
    done, calls = run(text_of("release/propose.sh"), RESULT="success")
    assert (done.returncode, done.stdout) == (0, "Nothing is newer.\n")
    assert calls == []
