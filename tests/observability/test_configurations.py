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


@pytest.mark.parametrize("traces", [["keep-all"], ["tail-sampling"], []], ids=["keep-all", "tail-sampling", "light"])
def test_the_collector_accepts_its_configuration(program, tmp_path, traces):
    folder = OBSERVABILITY / "collector"
    files = [f"--config={folder / name}.yaml" for name in ("config", *traces)]
    check(
        program("otelcol"),
        "validate",
        *files,
        "--feature-gates=transform.flatten.logs",
        QUEUE_DIRECTORY=str(tmp_path / "queue"),
    )


KUBERNETES = {
    "one": ["config", "keep-all", "kubernetes/gateway"],
    "one of several": ["config", "tail-sampling", "kubernetes/gateway", "kubernetes/several"],
    "agent": ["kubernetes/agent"],
    "agent with node metrics": ["kubernetes/agent", "kubernetes/node-metrics"],
    "layer": ["kubernetes/balancing/config"],
}


@pytest.mark.parametrize("role", ["one", "one of several", "agent"])
def test_the_collector_accepts_what_it_has_in_kubernetes(program, tmp_path, role):
    check(
        program("otelcol"),
        "validate",
        *(f"--config={OBSERVABILITY / 'collector' / name}.yaml" for name in KUBERNETES[role]),
        "--feature-gates=transform.flatten.logs",
        QUEUE_DIRECTORY=str(tmp_path / "queue"),
        STATE_DIRECTORY=str(tmp_path / "state"),
        PODS_DIRECTORY=str(tmp_path / "pods"),
        K8S_NODE_NAME="node",
        K8S_POD_NAME="pod",
    )


@pytest.mark.parametrize("role", KUBERNETES)
def test_a_pipeline_in_kubernetes_names_only_what_its_files_define(role):
    """CI's Collector lacks kubelet_stats, host_metrics and load_balancing, and cannot check what has them."""
    defined, pipelines = {}, {}
    for name in KUBERNETES[role]:
        part = yaml.safe_load((OBSERVABILITY / "collector" / f"{name}.yaml").read_text())
        for kind in ("receivers", "processors", "exporters", "connectors"):
            defined.setdefault(kind, set()).update(part.get(kind) or {})
        for pipeline, its in part["service"]["pipelines"].items() if "service" in part else ():
            pipelines.setdefault(pipeline, {}).update(its)
    used = {kind: set() for kind in ("receivers", "processors", "exporters")}
    for its in pipelines.values():
        assert its["processors"][0] == "memory_limiter"
        for kind, names in its.items():
            used[kind].update(names)
    assert used["processors"] == defined["processors"]
    assert used["receivers"] | used["exporters"] >= defined["connectors"]
    for kind in ("receivers", "exporters"):
        unused = {"fluent_forward"} if "config" in KUBERNETES[role] else set()  # Docker's
        assert used[kind] - defined["connectors"] == defined[kind] - unused


@pytest.mark.parametrize("more", ["", "remote-write/remote-write.yml"])
def test_prometheus_accepts_what_it_has_in_kubernetes(program, tmp_path, more):
    folder = OBSERVABILITY / "prometheus"
    components = OBSERVABILITY.parent / "deploy" / "kubernetes" / "components"
    (tmp_path / "rules").symlink_to(folder / "rules")
    whole = (folder / "kubernetes.yml").read_text() + ((components / more).read_text() if more else "")
    (tmp_path / "prometheus.yml").write_text(whole)
    check(program("promtool"), "check", "config", "--syntax-only", tmp_path / "prometheus.yml")


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


@pytest.mark.parametrize("file", ["prometheus.yml", "light.yml"])
def test_prometheus_accepts_its_configuration_and_rules(program, file):
    check(program("promtool"), "check", "config", "--lint=all", OBSERVABILITY / "prometheus" / file)


def test_a_data_source_asks_the_backend_at_the_port_it_has_in_compose():
    for uid, source in SOURCES.items():
        host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()
        assert host == uid == source["type"]
        assert OVERLAY[host]["ports"][0].endswith(f":{port}")
        assert source["editable"] is False


def test_the_signals_lead_to_each_other_by_labels_that_loki_and_prometheus_have():
    """What becomes of each link, and that it is answered: tests/dashboards/test_links.py."""
    [field] = SOURCES["loki"]["jsonData"]["derivedFields"]
    assert (field["matcherType"], field["matcherRegex"]) == ("label", "trace_id")
    streams = yaml.safe_load((OBSERVABILITY / "loki" / "config.yaml").read_text())["limits_config"]["otlp_config"]
    labels = streams["resource_attributes"]["attributes_config"][0]["attributes"]
    logs = SOURCES["jaeger"]["jsonData"]["tracesToLogsV2"]
    assert logs["tags"]
    for tag in logs["tags"]:
        assert tag["key"] in labels
        assert tag["value"] == tag["key"].replace(".", "_")


@pytest.mark.parametrize("link", ["tracesToLogsV2", "tracesToMetrics"])
def test_a_link_from_a_span_needs_no_tag_that_jaeger_keeps_elsewhere(link):
    """The service's name is beside the tags: a tag of that name is none, and the query comes out without it."""
    for tag in SOURCES["jaeger"]["jsonData"][link]["tags"]:
        assert tag["key"] != "service.name"


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


def test_grafana_has_the_memory_and_the_processes_that_it_was_reported_to_need():
    grafana = OVERLAY["grafana"]
    assert grafana["mem_limit"] == "1g"  # in 512 MB it is likely to be killed
    assert grafana["pids_limit"] == 512
    assert grafana["environment"]["GF_SERVER_ENABLE_GZIP"] == "false"
