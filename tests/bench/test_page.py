"""One page of a night's jobs."""

from bench import page

REPORT = """\
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="0" tests="204" time="1800.4">
<testcase classname="tests.e2e.test_kills" name="test_a[x]"><failure>why</failure></testcase>
<testcase classname="tests.e2e.test_kills" name="test_b"><error>why</error></testcase>
<testcase classname="tests.e2e.test_kills" name="test_c" /></testsuite></testsuites>
"""


def test_it_has_all_tables_and_names_each_test_that_failed(tmp_path):
    for job, file, text in (
        ("bench", "nightly/bench.md", "## Bench\n\n| what | now |\n|---|---|\n| orders/s | <b>1</b> |\n"),
        ("kills", "reports/kills.xml", REPORT),
    ):
        path = tmp_path / job / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert page.main([str(tmp_path), str(tmp_path / "page")]) == 0
    text = (tmp_path / "page" / "index.md").read_text()
    assert "| kills | 204 | 2 | 0 | 1800 |" in text
    assert "- `tests.e2e.test_kills::test_a[x]`\n- `tests.e2e.test_kills::test_b`\n" in text
    html = (tmp_path / "page" / "index.html").read_text()
    assert "<td>orders/s</td>" in html
    assert "&lt;b&gt;1&lt;/b&gt;" in html


def test_a_night_that_left_nothing_says_so(tmp_path):
    page.main([str(tmp_path), str(tmp_path / "page")])
    assert "They left nothing." in (tmp_path / "page" / "index.md").read_text()
