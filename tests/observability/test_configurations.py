"""The other backends' configurations: their own programs find nothing wrong with them, and they fit together."""

import json
import os
import re
import subprocess

import pytest
import yaml

from tests.fixtures.programs import has_program
from tests.observability.conftest import OBSERVABILITY

PROVISIONING = OBSERVABILITY / "grafana" / "provisioning"
SOURCES = {
    source["uid"]: source
    for source in yaml.safe_load((PROVISIONING / "datasources" / "datasources.yaml").read_text())["datasources"]
}
OVERLAY = yaml.safe_load((OBSERVABILITY.parent / "docker-compose.observability.yml").read_text())["services"]


def check(*command, **environment):
    done = subprocess.run(
        list(map(str, command)), env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not re.search(r"deprecat|warn|alias", said, re.IGNORECASE), said


@pytest.mark.parametrize("sampling", ["keep-all", "tail-sampling"])
def test_the_collector_accepts_its_configuration(program, tmp_path, sampling):
    folder = OBSERVABILITY / "collector"
    files = [f"--config={folder / name}.yaml" for name in ("config", sampling)]
    check(
        program("otelcol"),
        "validate",
        *files,
        "--feature-gates=transform.flatten.logs",
        QUEUE_DIRECTORY=str(tmp_path / "queue"),
    )


def test_jaeger_accepts_its_configuration(program):
    folder = OBSERVABILITY / "jaeger"
    check(program("jaeger"), "validate", f"--config={folder / 'config.yaml'}", UI_CONFIG=str(folder / "ui.json"))
    assert json.loads((folder / "ui.json").read_text())["monitor"] == {"menuEnabled": True}


if LOKI := has_program("loki"):  # else there is no such test: CI has no Loki, and skips none

    def test_loki_accepts_its_configuration(tmp_path):
        file = OBSERVABILITY / "loki" / "config.yaml"
        check(
            LOKI,
            "-verify-config",
            f"-config.file={file}",
            "-config.expand-env=true",
            "-log.level=warn",
            DATA_DIRECTORY=str(tmp_path),
        )


def test_prometheus_accepts_its_configuration_and_rules(program):
    check(program("promtool"), "check", "config", "--lint=all", OBSERVABILITY / "prometheus" / "prometheus.yml")


def test_a_data_source_asks_the_backend_at_the_port_it_has_in_compose():
    for uid, source in SOURCES.items():
        host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()
        assert host == uid == source["type"]
        assert OVERLAY[host]["ports"][0].endswith(f":{port}")
        assert source["editable"] is False


def test_the_signals_lead_to_each_other():
    prometheus, jaeger, loki = (SOURCES[uid]["jsonData"] for uid in ("prometheus", "jaeger", "loki"))
    # Exemplar -> trace: servicekit names the label so.
    assert prometheus["exemplarTraceIdDestinations"] == [{"name": "trace_id", "datasourceUid": "jaeger"}]
    # Log line -> trace: the structured metadata of that name.
    [field] = loki["derivedFields"]
    assert (field["matcherType"], field["matcherRegex"], field["datasourceUid"]) == ("label", "trace_id", "jaeger")
    # Trace -> log lines: by the stream's label and the same metadata.
    logs = jaeger["tracesToLogsV2"]
    assert logs["datasourceUid"] == "loki"
    assert logs["tags"] == [{"key": "service.name", "value": "service_name"}]
    streams = yaml.safe_load((OBSERVABILITY / "loki" / "config.yaml").read_text())["limits_config"]["otlp_config"]
    assert "service.name" in streams["resource_attributes"]["attributes_config"][0]["attributes"]
    # Trace -> metrics: of the spans, in the namespace that the Collector gives them.
    collector = yaml.safe_load((OBSERVABILITY / "collector" / "config.yaml").read_text())
    namespace = collector["connectors"]["span_metrics"]["namespace"]
    queries = [query["query"] for query in jaeger["tracesToMetrics"]["queries"]]
    assert all(f"{namespace}_" in query for query in queries)


def test_each_dollar_that_grafana_has_to_see_is_escaped():
    for file in PROVISIONING.rglob("*.yaml"):
        text = "\n".join(line.partition("#")[0] for line in file.read_text().splitlines())
        assert not re.search(r"(?<!\$)\$(?!\$)", text.replace("$$", "")), file


def test_jaegers_monitor_asks_for_the_metrics_that_the_collector_makes():
    collector = yaml.safe_load((OBSERVABILITY / "collector" / "config.yaml").read_text())
    spans = collector["connectors"]["span_metrics"]
    jaeger = yaml.safe_load((OBSERVABILITY / "jaeger" / "config.yaml").read_text())
    asked = jaeger["extensions"]["jaeger_storage"]["metric_backends"]["prometheus"]["prometheus"]
    assert (asked["metric_namespace"], asked["latency_unit"]) == (spans["namespace"], spans["histogram"]["unit"])
