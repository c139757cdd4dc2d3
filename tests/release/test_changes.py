"""The notes of a release are the first lines of its commits."""

import subprocess

import pytest

from release import changes


@pytest.fixture
def repository(tmp_path):
    """A repository; `commit(subject, *files)` and `tag(name)` add to it."""

    class Repository:
        folder = str(tmp_path)

        def git(self, *arguments):
            identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
            subprocess.run(["git", "-C", self.folder, *identity, *arguments], check=True, capture_output=True)

        def commit(self, subject, *files):
            for file in files:
                path = tmp_path / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(subject)
            self.git("add", "-A")
            self.git("commit", "-qm", f"{subject}\n\nWhy it is so.")

        def tag(self, name):
            self.git("tag", name)

    made = Repository()
    made.git("init", "-q", "-b", "main")
    made.commit("Begin", "README.md")
    made.tag("v1.0.0")
    return made


def lines(text):
    return [line.rpartition(" (")[0] for line in text.splitlines() if line.startswith("- ")]


def test_the_first_release_has_all_commits(repository):
    text = changes.notes("v1.0.0", repository.folder)
    assert text.startswith("The first release.\n\n## Tests, docs and tools\n\n- Begin (")


def test_a_release_has_what_came_since_the_one_before_oldest_first(repository):
    repository.commit("Refuse a quantity above 100", "services/order/routes.py", "tests/services/order/test_routes.py")
    repository.tag("v1.1.0-rc.1")
    repository.commit("Show exemplars", "observability/grafana/panels.py")
    repository.commit("Wait for the database", "services/order/store.py", "docs/compose.md", "README.md")
    repository.tag("v1.1.0")
    text = changes.notes("v1.1.0", repository.folder)
    assert text.startswith("Since v1.0.0.\n\n## The shop\n")
    assert lines(text) == ["- Refuse a quantity above 100", "- Wait for the database", "- Show exemplars"]
    assert [line for line in text.splitlines() if line.startswith("#")] == ["## The shop", "## Telemetry"]


def test_versions_are_ordered_as_numbers(repository):
    for name in ("v1.9.0", "v1.10.0"):
        repository.commit(name, name)
        repository.tag(name)
    repository.commit("Newest", "x")
    repository.tag("v1.11.0")
    assert changes.notes("v1.11.0", repository.folder).startswith("Since v1.10.0.")


def test_what_does_not_fit_on_the_page_is_left_to_git(repository, monkeypatch):
    monkeypatch.setattr(changes, "LIMIT", 150)
    for number in range(10):
        repository.commit(f"Change number {number}", "services/order/routes.py")
    repository.tag("v1.1.0")
    text = changes.notes("v1.1.0", repository.folder)
    assert lines(text) == [f"- Change number {number}" for number in range(4)]
    assert text.endswith("\n\nThere are more than fit on this page: `git log v1.0.0..v1.1.0` shows all.\n")


def test_merges_and_the_text_of_a_commit_are_not_in_it(repository):
    repository.git("checkout", "-qb", "side")
    repository.commit("Aside", "side")
    repository.git("checkout", "-q", "main")
    repository.git("merge", "--no-ff", "-qm", "Merge side", "side")
    repository.tag("v1.1.0")
    text = changes.notes("v1.1.0", repository.folder)
    assert lines(text) == ["- Aside"]
    assert "Why" not in text


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        ("Give `GET /orders/<id>` a limit", "Give `GET /orders/<id>` a limit"),
        ("Thank @somebody, fix #12", r"Thank \@somebody, fix \#12"),
        ("Take <script> and [x](y) and *z*", r"Take \<script\> and \[x\](y) and \*z\*"),
    ],
)
def test_a_commit_cannot_write_markdown_or_mention_people(subject, shown):
    assert changes.escaped(subject) == shown
