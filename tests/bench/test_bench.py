"""The measurements of `make bench`: their arithmetic, their load, and what they change about a stack."""

import ast
import json
import re
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bench import (
    budget,
    cli,
    cluster,
    document,
    figures,
    machine,
    measure,
    reckoning,
    report,
    rows,
    stacks,
    statements,
    switches,
    variant,
    wrk,
)
from bench.errors import BenchError
from bench.figures import Spread
from local.settings import Settings
from tests.bench.command import run_bench
from tests.fixtures.ports import free_ports

PROJECT = Path(__file__).parents[2]
SAID = {
    "orders": 100,
    "answers": 100,
    "others": "",
    "errors": 0,
    "seconds": 2.0,
    "p50_ms": 1.0,
    "p95_ms": 2.0,
    "p99_ms": 3.0,
    "max_ms": 4.0,
}


def wrk_says(**changes):
    return f"Running 2s test @ http://127.0.0.1\n  100 requests in 2.00s\n{json.dumps(SAID | changes)}\n"


def test_measurements_are_summed_up_by_the_middle_one_and_the_outermost():
    assert Spread.of([3.0, 9.0, 4.0]) == Spread(4.0, 3.0, 9.0)
    assert Spread.of([480.4, 470.0, 495.0]).text() == "480 (470..495)"


def test_configurations_are_compared_round_by_round_so_that_a_slow_minute_slows_both():
    base = {0: 100.0, 1: 50.0, 2: 200.0}
    assert figures.ratios({0: 80.0, 1: 40.0, 2: 180.0}, base) == Spread(0.8, 0.8, 0.9)
    assert figures.ratios({3: 1.0}, base) is None


def test_each_round_begins_with_another():
    assert [figures.rotated(["a", "b", "c"], number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_the_table_says_what_is_left_of_the_base_and_whether_the_aims_are_met():
    def turn(row, number, speed, cost):
        return {
            "row": row,
            "round": number,
            "per_second": speed,
            "cpu_ms": cost,
            "parts_cpu_ms": {"nginx": cost},
            "p50_ms": 1.0,
            "p99_ms": 2.0,
            "others_busy": 0.0,
        }

    result = {
        "base": "off",
        "rows": {"off": "none", "default": "all", "stock": "zero-code"},
        "turns": [
            *(turn("off", number, 400.0, 4.0) for number in range(3)),
            *(turn("default", number, speed, 5.5) for number, speed in enumerate((288.0, 308.0, 320.0))),
            *(turn("stock", number, 200.0, 6.0) for number in range(3)),
        ],
    }
    speeds = report.comparison(result)[0]
    assert speeds.rows[1][:5] == ["`default`", "308 (288..320)", "0.77 (0.72..0.80)", "5.50", "1.38"]
    kept, cost, added = report.aims(result)
    assert kept.startswith("0.77 (0.72..0.80) of the throughput")
    assert kept.endswith("at least 0.75: met")
    assert cost.startswith("1.38 times the processor time")
    assert cost.endswith("at most 1.35: not met")
    assert added.startswith("0.75 of what zero-code")  # 1.5 ms and 2.0 ms
    assert added.endswith("at most 0.6: not met")


def turns_with(shares):
    """One row, whose turns find other programs at work for such shares of the machine."""
    left = iter(shares)
    return {"off": lambda: {"row": "off", "per_second": 100.0, "cpu_ms": 4.0, "others_busy": next(left)}}


def test_a_round_that_other_programs_disturbed_is_made_again():
    records, said = [], []
    measure.interleaved(turns_with([0.02, 0.4, 0.03]), 2, said.append, records)
    assert [(record["round"], record["others_busy"]) for record in records] == [(0, 0.02), (1, 0.03)]
    assert "other programs had 40% of the machine in this round: it is made again" in said


def test_a_machine_that_does_not_become_quiet_gives_no_numbers():
    with pytest.raises(BenchError, match="The machine is not quiet: other programs had 40% of it, 10% may be"):
        measure.interleaved(turns_with([0.4] * 10), 2, lambda _: None, [])


def test_a_trial_on_a_noisy_machine_goes_through_and_says_that_it_is_none(tmp_path, monkeypatch):
    records = []
    measure.interleaved(turns_with([0.4] * 2), 2, lambda _: None, records, noisy=True)
    assert len(records) == 2
    assert report.warnings({"noisy": True}) == ["Measured with --noisy, to try the command: the numbers say nothing."]
    monkeypatch.setattr(document, "KEPT", tmp_path / "kept")
    (tmp_path / "trial.json").write_text('{"noisy": true}')
    with pytest.raises(BenchError, match="measure it again on a quiet machine"):
        document.keep(tmp_path, ["trial"])
    assert not list((tmp_path / "kept").iterdir())


def test_a_machine_that_is_busy_beforehand_is_refused_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "RESULTS", tmp_path)
    monkeypatch.setattr(machine, "describe", lambda: {"busy_before": 0.5})
    monkeypatch.setattr(cli, "running", lambda *_: pytest.fail("a stack was started"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert cli.main(["overhead"]) == 1
    assert "The machine is not quiet: other programs had 50% of it" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


def test_what_wrk_says_is_read():
    assert wrk.parse(wrk_says()) == wrk.Result(100, 2.0, 1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"orders": 98, "others": "202 500 "}, r"98 of 100 .* 1 x 202, 1 x 500;"),
        ({"errors": 3}, "broken connections and timeouts: 3"),
        ({"orders": 0, "answers": 0}, "0 of 0"),
    ],
)
def test_a_run_in_which_an_order_failed_is_no_measurement(changes, reason):
    with pytest.raises(BenchError, match=reason):
        wrk.parse(wrk_says(**changes))


def test_a_wrk_that_fails_is_quoted():
    with pytest.raises(BenchError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


class _Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen = 0

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = (self.path, self.headers["Authorization"], body) == ("/orders/", "Bearer a.b.c", {"product_id": 1})
        type(self).seen += 1
        self.send_response(400 if not asked else 202 if self.seen == self.pending else 201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


@pytest.mark.parametrize("pending", [None, 20])
def test_wrk_places_orders_and_one_that_is_left_pending_spoils_the_run(pending):
    handler = type("Shop", (_Shop,), {"pending": pending})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        if pending is None:
            result = wrk.run(f"http://127.0.0.1:{server.server_port}", "a.b.c", clients=2, seconds=1)
            assert 10 < result.orders <= handler.seen
            assert 0 < result.p50_ms <= result.p99_ms <= result.max_ms
            assert result.cpu_seconds > 0
        else:
            with pytest.raises(BenchError, match=r"other statuses: 1 x 202;"):
                wrk.run(f"http://127.0.0.1:{server.server_port}", "a.b.c", clients=2, seconds=1)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_wrk_that_is_none_is_refused(monkeypatch):
    wrk.find.cache_clear()
    monkeypatch.setenv("WRK", sys.executable)
    with pytest.raises(BenchError, match="WRK"):
        wrk.find()
    wrk.find.cache_clear()


def test_a_configuration_is_named_with_its_project_and_its_variables(tmp_path):
    row = rows.parse(f"full@{PROJECT},THREADS=8,LOG_LEVEL=debug")
    assert row.project == PROJECT
    assert row.name == f"full@{PROJECT.name},THREADS=8,LOG_LEVEL=debug"
    assert row.environment == {**rows.ROWS["full"].environment, "THREADS": "8", "LOG_LEVEL": "debug"}
    for wrong in ("all", f"full@{tmp_path}", "full,THREADS"):
        with pytest.raises(BenchError):
            rows.parse(wrong)


def test_pgbench_runs_what_the_services_run_for_an_order():
    lines = statements.script().splitlines()
    assert [" ".join(line.split()[:2]) for line in lines if not line.startswith("SELECT")] == [
        "INSERT INTO",
        "INSERT INTO",
        "UPDATE orders.orders",
    ]
    assert "%(" not in statements.script()


def test_an_orders_checks_of_switches_are_those_that_its_services_make():
    asked = switches.asked()
    assert asked.count("any") == 3  # a request to each of the three
    flags = {name for name in asked if name != "any"}
    own = {name for part in ("order", "payment", "product") for name in faults_of(part)}
    elsewhere = {"orders-lock", "pool-exhausted", "orders-scan"}  # in the background, and when an order is looked at
    assert flags == own - elsewhere
    assert 0 < switches.microseconds(0.01) < 1000


def faults_of(part):
    """The flags that a service's own module of faults names."""
    source = (PROJECT / f"services/{part}/src/{part}_service/faults.py").read_text()
    return ast.literal_eval(re.search(r"^FLAGS = (\(.*?\))", source, re.MULTILINE | re.DOTALL)[1])


def test_switches_are_compared_with_the_whole_order_in_a_table_and_in_words():
    turns = [{"order_us": 20_000.0, "checks_us": each} for each in (8.0, 10.0, 14.0)]
    machine = dict.fromkeys(("cores", "cpu", "memory_gb", "kernel", "commit"), 1)
    result = {
        "kind": "switches",
        "asked": ["any"] * 15,
        "turns": turns,
        "command": "x",
        "when": "y",
        "machine": machine,
    }
    assert "| 10.00 (8.00..14.00) | 0.050 (0.040..0.070) % |" in report.markdown(result)
    assert "10.0 µs of the 20,000 µs" in report.switches_sentence(result)
    assert "0.050%" in report.switches_sentence(result)


def test_the_pages_show_what_was_measured_and_nothing_else():
    shown = set()
    for path in document.PAGES:
        page = path.read_text()
        assert document.filled(page) == page, "run `python -m bench docs`"
        shown |= set(re.findall(r"<!-- begin: ([\w-]+) -->", page))
    kept = {path.stem for path in document.KEPT.glob("*.json")}
    assert {name for name in kept if not name.startswith(document.STEP)} <= shown


def test_a_block_of_the_page_is_made_of_its_result(tmp_path, monkeypatch):
    monkeypatch.setattr(document, "KEPT", tmp_path)
    result = {
        "kind": "budget",
        "command": "the command",
        "when": "2026-11-22",
        "remarks": ["All is well."],
        "machine": {"cores": 2, "cpu": "a CPU", "memory_gb": 8, "kernel": "6", "commit": "abc", "python": "3.11"},
        "parts": [{"name": "nginx", "start_seconds": 0.31, "start_seconds_budget": 2, "idle_mb": 8.04, "rss_mb": 12}],
    }
    (tmp_path / "budget.json").write_text(json.dumps(result))
    page = "# Page\n<!-- begin: budget -->\nold\n<!-- end: budget -->\n<!-- begin: other -->\n<!-- end: other -->\n"
    filled = document.filled(page)
    assert "| nginx | 0.3 (2) | 8 |  | 12 |" in filled
    assert "`the command` at commit abc, 2026-11-22, on 2 cores of a CPU" in filled
    assert "old" not in filled
    assert "<!-- begin: other -->\n\nNot measured yet.\n" in filled


def test_capacities_are_calculated_from_one_order_and_marked_where_they_were_measured():
    parts = {
        "nginx": 0.5,
        "auth-service": 0.0,
        "user-service": 0.0,
        "product-service": 1.5,
        "order-service": 3.0,
        "payment-service": 1.0,
        "order-db": 1.2,
    }
    each = {"spans": 12.0, "log_bytes": 2000.0, "log_lines": 7.0, "embedded_bytes": 1000.0, "database_bytes": 500.0}
    result = {
        "full": {"per_second": 250.0, "parts_cpu_ms": parts, "each": each, "series": 1000.0, "pool": 10},
    }
    backends = {
        "per_second": 200.0,
        "parts_cpu_ms": {"collector": 0.6, "jaeger": 1.2},
        "each": {"jaeger_bytes": 5000.0, "loki_bytes": 800.0},
        "memory_mb": {"collector": 93.4},
    }
    [table] = report.capacity(result)
    [stores] = report.stores({"backends": backends})
    cells = {row[0]: row[1:4] for row in table.rows + stores.rows}
    assert cells["cores, gateway and services"] == ["0.1 m", "10 c", "1,000 c"]
    assert cells["replicas of order-service"] == ["1 m", "5 c", "500 c"]
    assert cells["connections to PostgreSQL"] == ["20 m", "70 c", "6,670 c"]
    assert cells["log lines, uncompressed, a day"] == ["1.7 GB m", "172.8 GB c", "17.3 TB c"]
    assert cells["Loki, a day"] == ["691.2 MB m", "69.1 GB c", "6.9 TB c"]
    assert cells["Collector, memory"] == ["93 MB m", "160 MB c", "16,000 MB c"]


def test_what_up_says_about_its_steps_is_read_and_compared_with_the_budget():
    said = (
        "  order-db           ready on port 5433                 2.1 s\n"
        "  demo data          done                               0.6 s\n"
        "Everything is ready after 7.3 s.\n"
    )
    assert budget.start_times(said) == {"order-db": 2.1, "demo data": 0.6, "all": 7.3}
    with pytest.raises(BenchError, match="does not say"):
        budget.start_times("All is fine.")
    part = {"name": "nginx", "start_seconds": 3.0, "start_seconds_budget": 2, "idle_mb": 5.0, "idle_mb_budget": 10}
    assert budget.exceeded([part]) == ["Above its budget: nginx: start_seconds 3, budget 2"]


def test_what_has_a_budget_and_was_not_measured_is_told():
    parts = budget.with_budget({"nginx": {"start_seconds": 0.1, "idle_mb": 5.0}, "extra": {"idle_mb": 1.0}})
    said = budget.exceeded(parts)
    assert "Not measured: nginx: loaded_mb, budget 12" in said
    assert "Not measured: order-db: start_seconds, budget 5" in said
    assert not any("extra" in text or "nginx: idle_mb" in text for text in said)
    [table] = report.budget({"parts": parts})
    assert ["nginx", "0.1 (2)", "5 (11)", "not measured (12)", ""] in table.rows


def test_a_second_measurement_is_refused_and_deletes_nothing(tmp_path):
    results = tmp_path / "new" / "results"
    with stacks.alone(results):
        (results / "stacks").mkdir()
        done = run_bench(results, "budget")
    assert done.returncode == 1
    assert done.stderr.strip() == f"Another measurement is at work in {results}: wait until it ends."
    assert (results / "stacks").is_dir()


def test_what_does_not_end_is_told_in_a_sentence(tmp_path, monkeypatch):
    def endless(command, *, timeout, **_more):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(wrk, "find", lambda: ("wrk", {}))
    monkeypatch.setattr(subprocess, "run", endless)
    with pytest.raises(BenchError, match="wrk was to take 5 s and did not end within 35 s"):
        wrk.run("http://127.0.0.1:1", "a.b.c", clients=1, seconds=5)
    stack = stacks.BenchStack(rows.ROWS["full"], tmp_path / "stack")
    with pytest.raises(BenchError, match="`up` of the stack full did not end"):
        stack.up()
    stack.reset()  # the others are to be stopped too


def test_the_callers_backend_gets_no_span_of_a_measurement(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://backend.example")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=canary")
    of_stacks = {name: stacks.BenchStack(row, tmp_path)._environment for name, row in rows.ROWS.items()}
    assert not any("canary" in str(env) or "backend.example" in str(env) for env in of_stacks.values())
    assert of_stacks["default"]["OTEL_EXPORTER_OTLP_ENDPOINT"].startswith("http://127.0.0.1:")


def test_stock_without_its_packages_is_refused_and_not_measured_without_spans(tmp_path, monkeypatch):
    monkeypatch.setattr(stacks, "_ZERO_CODE", ("opentelemetry-instrumentation-nothing",))
    monkeypatch.setattr(stacks.BenchStack, "_local", lambda *_: pytest.fail("it was started"))
    with pytest.raises(BenchError, match=r"stock needs the packages of requirements/bench.txt: make .venv/ready-bench"):
        stacks.BenchStack(rows.ROWS["stock"], tmp_path).up()


def test_stock_runs_each_service_behind_opentelemetry_instrument(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_STOCK", "on")
    parts = {part.name: part for part in variant.build(bench_settings(tmp_path)).parts}
    for service in ("auth", "user", "product", "order", "payment"):
        part = parts[f"{service}-service"]
        words = part.command()
        start = next(place for place, word in enumerate(words) if word.endswith("opentelemetry-instrument"))
        assert words[start + 2 : start + 4] == ["-P", str(variant.STOCK)]
        assert words[-1] == f"{service}_service.app:create_app()"
        assert part.environment["OTEL_SERVICE_NAME"] == part.name
    assert "OTEL_TRACES_EXPORTER" not in parts["nginx"].environment


def bench_settings(tmp_path):
    names = [name for name in Settings(run_dir=tmp_path).ports() if name != "JAEGER_PORT"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    return Settings.read({"RUN_DIR": str(tmp_path), "TELEMETRY": "off", **{k: str(v) for k, v in ports.items()}})


def test_replicas_get_their_share_and_the_access_log_can_be_off(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_ORDER_PORTS", "5014,5024")
    monkeypatch.setenv("BENCH_ACCESS_LOG", "off")
    parts = {part.name: part for part in variant.build(bench_settings(tmp_path)).parts}
    assert parts["order-service-3"].environment["PORT"] == "5024"
    assert {"order-service", "order-service-2", "order-service-3"} <= set(parts["nginx"].needs)
    command = parts["nginx"].command()
    folder = tmp_path / "conf" / "nginx"
    assert "access_log off;" in (folder / "gateway.conf").read_text()
    assert " server 127.0.0.1:5014; server 127.0.0.1:5024;" in (folder / "upstreams.conf").read_text()
    done = subprocess.run([*command, "-t", "-q"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_sink_and_the_gateways_telemetry_can_stand_for_the_backends(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_SINK_PORT", "4444")
    monkeypatch.setenv("BENCH_GATEWAY_TELEMETRY", "on")
    parts = {part.name: part for part in variant.build(bench_settings(tmp_path)).parts}
    assert parts["gateway-telemetry"].environment["GATEWAY_TRACING"] == "log"
    done = subprocess.run([*parts["sink"].command(), "-t", "-q"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_tutorials_services_stand_in_the_places_of_the_shops(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_TUTORIAL", "on")
    parts = {part.name: part for part in variant.build(bench_settings(tmp_path)).parts}
    for service in ("auth", "user", "product", "order", "payment"):
        program = Path(parts[f"{service}-service"].command()[-1])
        assert program.name == f"{service}.py"
        assert program.is_file()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_configurations_are_measured_side_by_side_and_nothing_is_left(tmp_path):
    command = ("compare", "default", "tutorial", "--rounds", "1", "--seconds", "1", "--noisy", "--name", "test")
    done = run_bench(tmp_path, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "test.json").read_text())
    ours, theirs = result["turns"]
    assert ours["orders"] > 0
    assert theirs["orders"] > 0
    assert {"nginx", "order-service", "order-db", "gateway-telemetry", "sink"} <= ours["parts_cpu_ms"].keys()
    assert ours["parts_cpu_ms"]["sink"] < 0.1 * ours["cpu_ms"]  # or it would be no null sink
    assert theirs["cpu_ms"] > ours["cpu_ms"]
    assert "| `tutorial` |" in (tmp_path / "test.md").read_text()
    assert not (tmp_path / ".bench-stacks").exists()


MACHINE = {"cores": 2, "cpu": "a CPU", "commit": "abc"}
ONE_ORDER = {
    "command": "one machine",
    "when": "2026-11-29",
    "machine": MACHINE,
    "full": {
        "per_second": 250.0,
        "parts_cpu_ms": {
            "nginx": 0.3,
            "product-service": 1.5,
            "order-service": 3.0,
            "payment-service": 1.2,
            "order-db": 1.2,
            "embedded-backend": 2.0,
            "gateway-telemetry": 0.2,
        },
        "each": {"spans": 12.0, "log_bytes": 2000.0, "log_lines": 7.0, "database_bytes": 500.0},
        "series": 1000.0,
    },
    "stores": {
        "command": "the stores",
        "when": "2026-11-22",
        "machine": MACHINE,
        "backends": {
            "per_second": 100.0,
            "parts_cpu_ms": {
                "nginx": 0.3,
                "product-service": 1.5,
                "order-service": 6.0,  # twice what the other machine needs, so its stores count half there
                "payment-service": 2.4,
                "order-db": 1.2,
                "gateway-telemetry": 0.2,
                "collector": 0.6,
                "jaeger": 1.2,
                "loki": 0.1,
            },
            "each": {"jaeger_bytes": 10_000.0, "loki_bytes": 800.0},
        },
    },
}
IN_A_CLUSTER = {
    "command": "a cluster",
    "when": "2026-11-29",
    "machine": MACHINE,
    "rows": ["2", "1"],
    "turns": [
        {
            "row": row,
            "orders": 3000,
            "stages": [{"seconds": 10.0}, {"seconds": 20.0}],  # 100 orders/s
            "cores": {"order-service": cores, "payment-service": 0.15, "product-service": 0.15},
        }
        for row, cores in (("1", 0.9), ("2", 2.0), ("1", 0.8), ("1", 0.1))
    ],
}


def test_what_bigger_shops_need_is_calculated_from_the_cheapest_and_the_dearest_order_and_from_the_manifests():
    cells = {row[0]: row[1:3] for row in reckoning.needs(ONE_ORDER, None).rows}
    assert cells["pods of order-service"] == ["5 to 10", "500 to 1,000"]  # 3 ms x 1,000 are 3 cores, 60 % of five
    assert cells["pods of product-service"] == ["3", "250"]  # the same in both places
    assert cells["connections, for these pods without a pooler"][0] == "35 to 70"  # 5 (the overlay's pool) x (5 + 2)
    assert cells["PostgreSQL, primaries of 32 cores"] == ["1", "7"]
    assert cells["days until `orders.id` runs out"] == ["24.9", "0.2"]
    assert cells["PostgreSQL, a day"] == ["43.2 GB", "4.3 TB"]
    assert cells["Jaeger, a day, every trace"] == ["864.0 GB", "86.4 TB"]
    assert cells["Jaeger, a day, with 10% of the traces"] == ["86.4 GB", "8.6 TB"]
    # An order takes 6.9 to 12 ms of services, gateway, Collector and Jaeger: 11.5 to 20 cores. A node gives 14.4.
    assert cells["nodes of 16 cores and 64 GB"] == ["1 to 2", "80 to 139"]


def test_the_connections_of_the_autoscalers_pods_end_with_its_most_pods():
    cells = {row[0]: row[1:3] for row in reckoning.needs(ONE_ORDER, None).rows}
    # 0.35 cores a pod (70 % of what is asked for): 9 to 18 of order-, 4 to 7 of payment-, 10 of user-service.
    assert cells["connections, for the pods that the autoscaler starts"] == ["115 to 175", "250"]


def test_prometheus_keeps_fewer_days_than_it_may_where_its_size_is_reached_before():
    cells = {row[0]: row[1:3] for row in reckoning.needs(ONE_ORDER, None).rows}
    # 5,000 to 10,000 series, each 17,280 samples of 1.5 bytes a day: 130 to 259 MB a day, of 2 GB.
    assert cells["Prometheus, days of data kept"][0] == "8.3 to 15.0"


def test_an_order_in_the_cluster_counts_beside_the_others_by_the_middle_turn_with_the_fewest_pods():
    least, most = reckoning.Order.least_and_most(ONE_ORDER, IN_A_CLUSTER)
    assert (least.cpu_ms["order-service"], most.cpu_ms["order-service"]) == (3.0, 8.0)
    rows = {row[0]: row[1:] for row in reckoning.measured(ONE_ORDER, IN_A_CLUSTER).rows}
    assert rows["CPU, order-service"][:3] == ["3.00 ms", "6.00 ms", "8.00 ms"]
    assert rows["order-service, ratio to one machine"][:3] == ["1.00", "2.00", "2.67"]
    assert rows["orders/s during the run"][:3] == ["250", "100", "100"]


def test_what_was_measured_elsewhere_says_where_and_what_was_made_of_it():
    table = reckoning.measured(ONE_ORDER, None)
    rows = {row[0]: row[1:] for row in table.rows}
    assert all(len(row) == len(table.head) for row in table.rows)
    assert rows["measured by"][:2] == ["`one machine`", "`the stores`"]
    assert rows["CPU, jaeger"][:2] == ["0.60 ms", "1.20 ms"]
    assert "calculated: x 3.00 / 6.00" in rows["CPU, jaeger"][2]
    assert rows["Loki, chunks and index"][:2] == ["-", "800 bytes"]


def test_costs_are_those_of_the_nodes_the_servers_and_the_bytes():
    rows = {row[0]: row[1] for row in reckoning.price(ONE_ORDER, None).rows}
    assert rows["nodes"] == "480 to 960"  # one or two of 16 cores
    assert rows["PostgreSQL, cores"] == "180"  # three servers of two cores
    assert rows["PostgreSQL, disk of one month's orders"] == "389"  # 1.3 TB on each of three
    assert rows["Jaeger, disk"] == "52"  # 173 GB, three copies
    assert rows["Loki, object store"] == "5"  # 207 GB
    assert rows["all"] == "1,106 to 1,586"


def test_what_ends_first_stands_first_with_what_comes_after_it():
    rows = reckoning.ends(ONE_ORDER, None).rows
    rates = [float(row[0].split(" to ")[0].replace(",", "")) for row in rows if row[0] != "not measured"]
    assert rates == sorted(rates)
    found = {row[1]: row[0] for row in rows}
    assert found["one pod of order-service"] == "100 to 200"
    assert found["20 pods of order-service, the autoscaler's maximum"] == "2,000 to 4,000"
    assert found["PostgreSQL in `local`"] == "1,000"  # its limit there is 2 cores
    assert found["3 Collectors of `tail-sampling`"] == "3,000 to 6,000"
    assert found["gateway-telemetry, one pod"] == "3,000"
    assert found["Loki's limit for one tenant, in `local-full`"] == "2,097"  # 4 MiB of lines of 2,000 bytes
    assert [row[0] for row in rows[-2:]] == ["not measured"] * 2
    assert all(row[3] for row in rows)


KUBECTL = """#!{python}
import json, sys
from pathlib import Path
arguments = sys.argv[1:]
with Path(__file__).with_name("calls").open("a") as calls:
    calls.write(" ".join(arguments) + "\\n")
if "nodes" in arguments:
    info = {{"kernelVersion": "6.1", "kubeletVersion": "v1.34.4"}}
    node = {{"status": {{"capacity": {{"cpu": "2", "memory": "8000000Ki"}}, "nodeInfo": info}}}}
    print(json.dumps({{"items": [node]}}))
elif "hpa" in arguments:
    print({autoscalers!r})
elif "cat" in arguments:
    rates = ((1, 40), (2, 95), (4, 100))
    stages = [{{"users": users, "order_rate": rate, "p50": 10, "p99": 20}} for users, rate in rates]
    services = {{"services": {{"order-service": {{"cores": 0.5}}, "nginx": {{"cores": None}}}}}}
    report = {{"good": {good}, "stages": stages, "server": services, "generator_was_busy": False}}
    report |= {{"began": 100, "ended": 130.5, "books": {{"told": 900}}, "total": {{"failures": 0}}}}
    print(json.dumps(report))
elif "-c" in arguments and "python" in arguments:
    print("7.5")
"""


def kubectl(tmp_path, monkeypatch, *, good=True, autoscalers=""):
    """A kubectl that answers as a cluster with the shop would, and writes down what it was asked."""
    program = tmp_path / "kubectl"
    program.write_text(KUBECTL.format(python=sys.executable, good=good, autoscalers=autoscalers))
    program.chmod(0o755)
    monkeypatch.setenv("KUBECTL", str(program))
    monkeypatch.setattr(cluster, "_NAMES_SECONDS", 0)
    return lambda: (tmp_path / "calls").read_text().splitlines()


def test_in_a_cluster_each_number_of_pods_gets_a_ramp_and_all_is_as_before_afterwards(tmp_path, monkeypatch):
    calls = kubectl(tmp_path, monkeypatch)
    done = []
    with cluster.loaded(workers=2, users=4, seconds=30):
        cluster.turns([1, 3], 1, lambda _: None, done)
    assert [(turn["row"], turn["per_second"], turn["knee"]["users"]) for turn in done] == [("1", 100, 2), ("3", 100, 2)]
    assert [(turn["cores"], turn["database_ms"]) for turn in done] == [({"order-service": 0.5}, 7.5)] * 2
    made = calls()
    assert "LOAD_USERS=4 LOAD_SECONDS=30 LOAD_MIX=order=1 LOAD_WORKERS=2" in made[0]
    scaled = [call.split("scale ")[1] for call in made if "scale" in call]
    assert scaled == [
        "deployment/loadtest-worker --replicas=2",
        "deployment/order-service --replicas=1",
        "deployment/order-service --replicas=3",
        "deployment/loadtest-worker --replicas=0",
        "deployment/order-service --replicas=1",
    ]
    assert made[-2].endswith("LOAD_SHAPE- LOAD_USERS- LOAD_SECONDS- LOAD_MIX- LOAD_WORKERS-")
    result = {"kind": "cluster", "rows": ["1", "3"], "turns": done}
    knees, curve = report.tables(result)
    assert knees.rows[1][:3] == ["3", "100", "2"]
    assert knees.rows[1][5] == "7.5"
    assert curve.rows[0] == ["1", "40", "95", "100"]
    assert curve.head == ["pods", "1 user", "2 users", "4 users"]
    assert "| --- | ---: | ---: | ---: |\n" in curve.markdown()


def test_a_ramp_that_was_not_good_gives_no_number_and_a_cluster_that_scales_by_itself_is_refused(tmp_path, monkeypatch):
    calls = kubectl(tmp_path, monkeypatch, good=False, autoscalers="horizontalpodautoscaler/order-service")
    with pytest.raises(BenchError, match="not good"), cluster.loaded(workers=1, users=4, seconds=30):
        cluster.turns([1], 1, lambda _: None, [])
    assert calls()[-1].endswith("deployment/order-service --replicas=1")
    with pytest.raises(BenchError, match="HorizontalPodAutoscaler"):
        cluster.describe()
