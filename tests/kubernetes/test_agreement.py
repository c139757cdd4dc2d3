"""deploy/kubernetes and docker-compose.yml say the same where they say it twice. Needs no cluster, and no kubectl."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from scenarios import flags

PROJECT = Path(__file__).parents[2]
KUBERNETES = PROJECT / "deploy" / "kubernetes"
SERVICES = ("auth-service", "user-service", "product-service", "order-service", "payment-service")
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}

BASE = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
OBSERVED = yaml.safe_load((PROJECT / "docker-compose.observability.yml").read_text().replace("!override", ""))[
    "services"
]
COMPOSE = {**OBSERVED, **BASE} | {
    "embedded-backend": yaml.safe_load((PROJECT / "observability" / "embedded" / "compose.yml").read_text())[
        "services"
    ]["embedded-backend"]
}


def documents(folder=KUBERNETES):
    """Every object in the files of a folder: (file, object)."""
    return [
        (file, document)
        for file in sorted(folder.rglob("*.yaml"))
        for document in yaml.safe_load_all(file.read_text())
        if isinstance(document, dict)
    ]


OBJECTS = [
    (file, each)
    for file, each in documents()
    if "apiVersion" in each and each["kind"] not in {"Kustomization", "Component"}
]
PODS = {
    each["metadata"]["name"]: each["spec"]["template"]["spec"]
    for _, each in OBJECTS
    if each["kind"] in {*WORKLOADS, "Job"} and each["metadata"]["name"] != "any"
}
KUSTOMIZATIONS = {
    file: each
    for folder in (
        *(KUBERNETES, PROJECT / "nginx", PROJECT / "observability"),
        *(PROJECT / "order-db-services", PROJECT / "scenarios" / "flags"),
    )
    for file, each in documents(folder)
    if each.get("kind") in {"Kustomization", "Component"}
}
SHARED = (
    *(*SERVICES, "nginx", "order-db"),
    *("collector", "gateway-telemetry", "prometheus", "embedded-backend"),
    *("jaeger", "loki", "alertmanager", "grafana", "loadtest", "loadtest-worker"),
)


def container(name):
    return PODS[name]["containers"][0]


def mebibytes(size):
    number, unit = re.fullmatch(r"(\d+)([a-zA-Z]*)", str(size)).groups()
    return int(number) * {"m": 1, "Mi": 1, "g": 1024, "Gi": 1024}[unit]


def cores(share):
    text = str(share)
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def environment(name):
    """A container's variables with fixed values, with those of the ConfigMaps that it takes whole."""
    generated = {
        generator["name"]: dict(literal.split("=", 1) for literal in generator.get("literals", []))
        for generator in KUSTOMIZATIONS[KUBERNETES / "base" / "kustomization.yaml"]["configMapGenerator"]
    }
    found = {}
    for source in container(name).get("envFrom", []):
        found |= generated[source["configMapRef"]["name"]]
    return found | {entry["name"]: entry["value"] for entry in container(name).get("env", []) if "value" in entry}


def composed(name):
    """The same in Compose, of what has a value there: the default of what a person may set."""
    values = COMPOSE[name]["environment"]
    return {
        key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)).replace("$$", "$")
        for key, value in values.items()
        if value is not None
    }


@pytest.mark.parametrize("name", SHARED)
def test_a_container_may_take_as_much_memory_as_in_compose(name):
    limits = container(name)["resources"]["limits"]
    assert mebibytes(limits["memory"]) == mebibytes(COMPOSE[name]["mem_limit"])
    if "cpus" in COMPOSE[name]:
        assert cores(limits["cpu"]) == COMPOSE[name]["cpus"]


@pytest.mark.parametrize("name", PODS)
def test_a_container_asks_for_no_more_than_it_may_have(name):
    if "resources" not in container(name):
        assert name in {"make-secrets", "migrate", "seed"}  # base/one-shot-container.yaml gives them theirs
        return
    resources = container(name)["resources"]
    assert mebibytes(resources["requests"]["memory"]) <= mebibytes(resources["limits"]["memory"])
    assert 0 < cores(resources["requests"]["cpu"]) <= cores(resources["limits"]["cpu"])


@pytest.mark.parametrize("name", [*SHARED, "migrate", "seed"])
def test_a_container_runs_as_the_same_user_as_in_compose(name):
    user, _, group = COMPOSE[name]["user"].partition(":")
    context = PODS[name]["securityContext"]
    assert (str(context["runAsUser"]), str(context["runAsGroup"])) == (user, group)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_listens_where_compose_has_it_and_where_its_services_lead(name):
    port = int(composed(name)["PORT"])
    assert environment(name)["PORT"] == str(port)
    assert container(name)["ports"] == [{"name": "http", "containerPort": port}]
    services = [each for _, each in OBJECTS if each["kind"] == "Service" and each["metadata"]["name"].startswith(name)]
    assert {each["metadata"]["name"] for each in services} == {name, f"{name}-pods"}
    assert {each["spec"]["ports"][0]["port"] for each in services} == {port}
    upstreams = (PROJECT / "nginx" / "kubernetes" / "upstreams.conf").read_text()
    assert f"server {name}-pods.shop.svc.cluster.local:{port} resolve" in upstreams


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_the_same_environment_as_in_compose(name):
    assert environment(name) == composed(name)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_looks_at_the_file_of_flags_of_compose_which_may_change_while_it_runs(name):
    base = KUSTOMIZATIONS[KUBERNETES / "base" / "kustomization.yaml"]
    assert "../../../scenarios/flags" in base["resources"]
    [generator] = KUSTOMIZATIONS[flags.DEFAULT.parent / "kustomization.yaml"]["configMapGenerator"]
    assert generator["files"] == [flags.DEFAULT.name]
    assert generator["options"]["disableNameSuffixHash"]  # with it, a change would be a rollout
    [patch] = [each for each in base["patches"] if each["path"] == "flags.yaml"]
    assert re.fullmatch(patch["target"]["name"], name)
    assert not re.fullmatch(patch["target"]["name"], "nginx")
    operations = yaml.safe_load((KUBERNETES / "base" / "flags.yaml").read_text())
    volume, mount = (operation["value"] for operation in operations)
    assert volume["configMap"]["name"] == generator["name"]
    assert mount["name"] == volume["name"]
    assert f"{mount['mountPath']}/{flags.DEFAULT.name}" == environment(name)["FLAGS_FILE"]
    assert "subPath" not in mount


def test_the_gateway_has_the_same_settings_as_in_compose():
    different = {"NGINX_ENTRYPOINT_QUIET_LOGS", "DEPLOYMENT_ENVIRONMENT", "GATEWAY_OTLP_ENDPOINT"}
    ours, theirs = environment("nginx"), composed("nginx")
    assert {key: value for key, value in ours.items() if key not in different} == {
        key: value for key, value in theirs.items() if key not in different
    }
    assert set(ours) == set(theirs)


def test_images_of_others_have_the_tags_of_compose():
    theirs = dict(each["image"].split(":") for each in COMPOSE.values() if "image" in each and "build" not in each)
    ours = {
        image["name"]: image["newTag"]
        for each in KUSTOMIZATIONS.values()
        for image in each.get("images", [])
        if not image["name"].startswith("shop/")
    }
    assert ours == theirs
    every = [
        (image["name"], image["newTag"])
        for each in KUSTOMIZATIONS.values()
        for image in each.get("images", [])
        if not image["name"].startswith("shop/")
    ]
    assert set(every) == set(theirs.items())  # one that is named in two places has the same tag in both


def test_our_images_have_one_tag_everywhere_in_base_and_components():
    tags = {
        image["newTag"]
        for file, each in KUSTOMIZATIONS.items()
        for image in each.get("images", [])
        if image["name"].startswith("shop/") and "overlays" not in file.parts
    }
    assert tags == {"dev"}


def test_the_files_that_kustomizations_name_are_there():
    for file, each in KUSTOMIZATIONS.items():
        named = [*each.get("resources", []), *each.get("components", [])]
        named += [patch["path"] for patch in each.get("patches", []) if "path" in patch]
        for generator in each.get("configMapGenerator", []):
            named += [entry.rpartition("=")[2] for entry in generator.get("files", [])]
        for name in named:
            assert (file.parent / name).exists(), f"{file} names {name}"


def test_all_files_of_the_gateway_and_all_rules_are_in_configmaps():
    def packed(folder):
        return {
            Path(entry.rpartition("=")[2]).as_posix()
            for generator in KUSTOMIZATIONS[PROJECT / folder / "kustomization.yaml"]["configMapGenerator"]
            for entry in generator["files"]
        }

    nginx = PROJECT / "nginx"
    wanted = {
        path.relative_to(nginx).as_posix()
        for part in ("gateway", "tracing", "templates")
        for path in (nginx / part).rglob("*")
        if path.is_file()
    }
    assert wanted <= packed("nginx")
    prometheus = PROJECT / "observability" / "prometheus"
    assert {f"rules/{path.name}" for path in (prometheus / "rules").iterdir()} <= packed("observability/prometheus")


def test_grafana_shows_all_dashboards_and_runbooks_of_compose_with_its_settings():
    grafana = PROJECT / "observability" / "grafana"
    packed = {
        generator["name"]: set(generator["files"])
        for generator in KUSTOMIZATIONS[grafana / "kustomization.yaml"]["configMapGenerator"]
    }
    assert packed == {
        "grafana-datasources": {"provisioning/datasources/datasources.yaml"},
        "grafana-providers": {"provisioning/dashboards/dashboards.yaml"},
        "grafana-dashboards": {f"dashboards/{path.name}" for path in (grafana / "dashboards").iterdir()},
        "grafana-runbooks": {
            f"provisioning/runbooks/{path.name}" for path in (grafana / "provisioning/runbooks").iterdir()
        },
    }
    # In Compose there is an admin, with a password in the volume; here there is none.
    different = {"GF_SECURITY_ADMIN_PASSWORD__FILE", "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"}
    ours, theirs = environment("grafana"), composed("grafana")
    assert {name: value for name, value in ours.items() if name not in different} == {
        name: value for name, value in theirs.items() if name not in different
    }
    # kubectl keeps a copy of what was applied in a note of an object, which may have 256 KiB.
    for names in packed.values():
        assert sum((grafana / name).stat().st_size for name in names) < 230_000


def test_grafana_finds_its_data_sources_where_the_components_have_them():
    sources = yaml.safe_load((PROJECT / "observability/grafana/provisioning/datasources/datasources.yaml").read_text())
    asked = {tuple(source["url"].removeprefix("http://").split(":")) for source in sources["datasources"]}
    for stores in (("embedded-backend",), ("jaeger", "loki")):
        there = {
            (each["metadata"]["name"], str(port["port"]))
            for file, each in OBJECTS
            if each["kind"] == "Service" and file.parts[-3] in {"telemetry", *stores}
            for port in each["spec"]["ports"]
        }
        assert asked <= there, stores


@pytest.mark.parametrize("name", ["jaeger", "loki", "alertmanager"])
def test_a_store_has_the_arguments_and_the_files_of_compose(name):
    arguments = container(name)["args"]
    if name == "alertmanager":  # several are a cluster
        assert container(name)["command"] == COMPOSE[name]["entrypoint"]
        assert arguments[0] == COMPOSE[name]["command"][0]
    else:
        assert arguments == COMPOSE[name]["command"]
    folder = PROJECT / "observability" / name
    (generator,) = KUSTOMIZATIONS[folder / "kustomization.yaml"]["configMapGenerator"]
    assert set(generator["files"]) == {
        path.name for path in folder.iterdir() if path.name not in {"kustomization.yaml", "receivers.example.yml"}
    }


def test_the_load_test_has_the_settings_and_the_command_of_compose():
    chosen = {"LOAD_HOST", "LOAD_PROMETHEUS", "LOAD_WORKERS"}  # the shop's addresses here, and how many are waited for
    (settings,) = [
        dict(literal.split("=", 1) for literal in generator["literals"])
        for file, each in KUSTOMIZATIONS.items()
        for generator in each.get("configMapGenerator", [])
        if generator["name"] == "load-settings"
    ]
    variables = {entry["name"]: entry["value"] for entry in container("loadtest")["env"]}
    theirs = composed("loadtest")
    assert {name: value for name, value in (settings | variables).items() if name not in chosen} == {
        name: value for name, value in theirs.items() if name not in chosen
    }
    (script,) = container("loadtest-worker")["command"][2:]
    assert " ".join(COMPOSE["loadtest-worker"]["command"]).replace("loadtest-master", "loadtest") in script
    (master,) = [each for _, each in OBJECTS if each["kind"] == "Service" and each["metadata"]["name"] == "loadtest"]
    assert container("loadtest")["ports"][0]["containerPort"] == master["spec"]["ports"][0]["port"]


def test_the_balancing_layer_listens_where_the_collector_does_and_finds_all_of_them():
    ports = [entry for entry in container("collector")["ports"] if entry["name"] != "metrics"]
    assert [entry for entry in container("collector-balancer")["ports"] if entry["name"] != "metrics"] == ports
    layer = yaml.safe_load((PROJECT / "observability/collector/kubernetes/balancing/config.yaml").read_text())
    resolver = layer["exporters"]["load_balancing"]["resolver"]["dns"]
    (service,) = [
        each for _, each in OBJECTS if each["kind"] == "Service" and each["metadata"]["name"] == "collector-pods"
    ]
    assert resolver["hostname"].endswith(f":-{service['metadata']['name']}}}")
    assert resolver["port"].endswith(f":-{service['spec']['ports'][0]['port']}}}")
    assert service["spec"]["clusterIP"] == "None"  # one address for all would be one Collector for the layer
    # A trace that waits for its decision has to be over before its spans could be sent anew elsewhere.
    assert container("collector-balancer")["resources"]["limits"] == container("collector")["resources"]["limits"]


def requested(overlay):
    """What all pods of an overlay ask for together, in cores."""
    folder = KUBERNETES / "overlays" / overlay
    wanted = {
        KUBERNETES / "base",
        *(
            KUBERNETES / "components" / Path(name).name
            for name in KUSTOMIZATIONS[folder / "kustomization.yaml"]["components"]
        ),
    }
    return sum(
        cores(each["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
        * each["spec"].get("replicas", 1)
        for file, each in OBJECTS
        if each["kind"] in WORKLOADS
        and each["metadata"]["name"] != "any"
        and any(file.is_relative_to(one) for one in wanted)
    )


@pytest.mark.parametrize("overlay", ["local", "local-full"])
def test_an_overlay_for_one_node_fits_two_cores_with_room_for_a_rollout(overlay):
    cluster = 0.3  # its own DNS and metrics-server
    assert 1 < requested(overlay) < 2 - cluster - 0.1


@pytest.mark.parametrize("name", [name for name in PODS if name not in {"make-secrets", "prometheus"}])
def test_only_who_asks_kubernetes_has_a_token(name):
    shared = yaml.safe_load((KUBERNETES / "base" / "every-service.yaml").read_text())
    everywhere = shared["spec"]["template"]["spec"]
    assert PODS[name].get("automountServiceAccountToken", everywhere["automountServiceAccountToken"]) is False


def test_every_namespace_with_a_policy_denies_what_is_not_named():
    for namespace in ("base", "components/telemetry/stack"):
        policies = [each for file, each in documents(KUBERNETES / namespace) if each.get("kind") == "NetworkPolicy"]
        (denying,) = [each["spec"] for each in policies if each["metadata"]["name"] == "nothing-by-default"]
        assert denying == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_pause_before_an_end_fits_into_the_grace():
    pause = next(
        patch["value"]["preStop"]["sleep"]["seconds"]
        for patch in yaml.safe_load((KUBERNETES / "base" / "every-service-container.yaml").read_text())
        if patch["path"].endswith("/lifecycle")
    )
    pod = yaml.safe_load((KUBERNETES / "base" / "every-service.yaml").read_text())["spec"]["template"]["spec"]
    needed = int(COMPOSE["order-service"]["stop_grace_period"].removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] >= pause + needed
    # The cluster's DNS remembers for 5 s, nginx for as long as it says.
    (valid,) = re.findall(r"valid=(\d+)s", (PROJECT / "nginx" / "kubernetes" / "upstreams.conf").read_text())
    assert pause >= 5 + int(valid)


@pytest.mark.parametrize("name", [*SERVICES, "nginx"])
def test_one_pod_at_a_time_may_be_evicted(name):
    (budget,) = [
        each["spec"]
        for _, each in OBJECTS
        if each["kind"] == "PodDisruptionBudget" and each["metadata"]["name"] == name
    ]
    assert budget == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
    }


def test_the_secrets_that_are_made_are_those_of_compose():
    def assigned(file):
        tree = ast.parse((PROJECT / file).read_text())
        return {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        }

    ours = assigned("deploy/kubernetes/base/make_secrets.py")["PASSWORDS"]
    theirs = assigned("order-db-services/make_secrets.py")
    assert set(ours["database"]) == set(theirs["PASSWORDS"])
    assert set(ours["clients"]) == set(theirs["CLIENT_SECRETS"])


POLICIES = {each["metadata"]["name"]: each["spec"] for _, each in OBJECTS if each["kind"] == "NetworkPolicy"}


def ports(rules):
    return {port["port"] for rule in rules for port in rule["ports"]}


def values(name):
    return yaml.safe_load((KUBERNETES / "values" / f"{name}.yaml").read_text())


def test_of_all_telemetry_only_the_collector_may_go_to_the_stores_and_prometheus_with_remote_write():
    production = KUSTOMIZATIONS[KUBERNETES / "overlays" / "production" / "kustomization.yaml"]
    assert not [patch for patch in production["patches"] if patch["target"].get("kind") == "NetworkPolicy"]
    for name, pod in (("to-the-stores", "collector"), ("prometheus-remote-write", "prometheus")):
        assert POLICIES[name]["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": pod}}
        assert POLICIES[name]["policyTypes"] == ["Egress"]
    # The ports of pods: the gateways of Loki's and of Mimir's chart listen to 8080 behind port 80.
    otlp = values("jaeger")["userconfig"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert ports(POLICIES["to-the-stores"]["egress"]) == {int(otlp.rpartition(":")[2]), 8080, 80, 443}
    assert ports(POLICIES["prometheus-remote-write"]["egress"]) == {8080, 19291, 80}


def test_the_stores_may_ask_prometheus_where_their_values_say_it_is():
    asked = values("jaeger")["userconfig"]["extensions"]["jaeger_storage"]["metric_backends"]["prometheus"]
    assert asked["prometheus"]["endpoint"] == "http://prometheus.shop-telemetry:9090"
    policy = POLICIES["prometheus-from-the-stores"]
    assert policy["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}
    assert ports(policy["ingress"]) == {9090}
    namespaces = [each["namespaceSelector"]["matchLabels"] for rule in policy["ingress"] for each in rule["from"]]
    assert {"kubernetes.io/metadata.name": "observability"} in namespaces


def test_prometheus_sees_and_reaches_the_pods_of_every_namespace_that_it_looks_for_targets_in():
    configuration = yaml.safe_load((PROJECT / "observability" / "prometheus" / "kubernetes.yml").read_text())
    looked_into = {
        name
        for job in configuration["scrape_configs"]
        for found in job["kubernetes_sd_configs"]
        for name in found["namespaces"]["names"]
    }
    folders = {"stack": "shop-telemetry", "agent": "shop-agents"}  # whose kustomization.yaml names the namespace
    bound = {
        each["metadata"].get("namespace") or folders[file.parent.name]
        for file, each in OBJECTS
        if each["kind"] == "RoleBinding" and each["metadata"]["name"] == "prometheus-sees-pods"
    }
    assert looked_into == bound == {"shop", "shop-telemetry", "shop-agents"}
    (metrics,) = [
        entry["containerPort"] for entry in container("collector-agent")["ports"] if entry["name"] == "metrics"
    ]
    assert ports(POLICIES["collector-agent"]["ingress"]) == {metrics}
    (towards,) = [rule for rule in POLICIES["prometheus"]["egress"] if "shop-agents" in str(rule.get("to"))]
    assert ports([towards]) == {metrics}


def test_a_zone_without_a_ready_node_keeps_no_pod_from_being_made_elsewhere():
    shared = yaml.safe_load((KUBERNETES / "base" / "every-service.yaml").read_text())
    by_zone = shared["spec"]["template"]["spec"]["topologySpreadConstraints"][1]
    assert by_zone["topologyKey"] == "topology.kubernetes.io/zone"
    production = KUSTOMIZATIONS[KUBERNETES / "overlays" / "production" / "kustomization.yaml"]
    changed = {
        step["path"].rpartition("/")[2]: step["value"]
        for patch in production["patches"]
        for step in yaml.safe_load(patch["patch"])
        if isinstance(step, dict) and step["path"].startswith("/spec/template/spec/topologySpreadConstraints/1/")
    }
    assert changed == {"whenUnsatisfiable": "DoNotSchedule", "nodeTaintsPolicy": "Honor"}


def test_old_traces_are_deleted_from_the_store_that_jaeger_writes_to():
    (cleaner,) = [each for _, each in OBJECTS if each["kind"] == "CronJob"]
    (job,) = cleaner["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    variables = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in job["env"]}
    jaeger = values("jaeger")
    store = jaeger["userconfig"]["extensions"]["jaeger_storage"]["backends"]["main"]["opensearch"]
    (password,) = [
        entry["valueFrom"] for entry in jaeger["jaeger"]["extraEnv"] if entry["name"] == "OPENSEARCH_PASSWORD"
    ]
    assert job["args"][1:] == store["server_urls"]
    assert variables == {
        "INDEX_PREFIX": store["indices"]["index_prefix"],
        "ES_USERNAME": store["auth"]["basic"]["username"],
        "ES_PASSWORD": password,
    }
    assert job["image"].endswith(f":{jaeger['jaeger']['image']['tag']}")
    kept = yaml.safe_load((PROJECT / "observability" / "jaeger" / "config.yaml").read_text())["extensions"]
    ttl = kept["jaeger_storage"]["backends"]["main"]["badger"]["ttl"]["spans"]
    assert (int(job["args"][0]) - 1) * 24 == int(ttl.removesuffix("h"))
    assert jaeger["esIndexCleaner"] == {"enabled": False}


@pytest.mark.parametrize(("name", "chart"), [("jaeger", "jaeger"), ("loki", "loki"), ("mimir", "mimir-distributed")])
def test_the_values_of_a_chart_say_for_which_version_they_are(name, chart):
    head = (KUBERNETES / "values" / f"{name}.yaml").read_text()
    (version,) = re.findall(rf"helm install \S+ \S+/{chart} --version (\S+) ", head)
    assert version in head.splitlines()[0]


@pytest.mark.parametrize("overlay", ["local", "local-full", "production"])
def test_an_overlay_names_each_image_of_ours_that_it_takes(overlay):
    folder = KUBERNETES / "overlays" / overlay
    whole = KUSTOMIZATIONS[folder / "kustomization.yaml"]
    parts = [KUBERNETES / "base", *((folder / name).resolve() for name in whole["components"])]
    taken = {
        image
        for part in parts
        for file in part.rglob("*.yaml")
        for image in re.findall(r"image: (shop/[a-z-]+)", file.read_text())
    }
    assert {image["name"] for image in whole["images"]} == taken
    registry = {image.get("newName", image["name"]) for image in whole["images"]}
    wanted = {f"registry.example/{name}" for name in taken} if overlay == "production" else taken
    assert registry == wanted
