# `make` alone lists the targets. Needed beforehand: Python 3.11 or newer with its venv module, and make.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
COMPOSE ?= docker compose
KUBECTL ?= kubectl
TAG ?= dev

.DEFAULT_GOAL := help

# An environment whose Python has gone (an upgrade of the system, a moved pyenv) is made anew.
$(shell test -x $(PY) || rm -f $(VENV)/ready-*)

TARGETS := help up down reset status logs health test test-slow test-compose test-kubernetes images release-images release-join release-files backends lint format lock docs site pictures slo story why fault scenario scenarios dataset accuracy load load-ui rotate-keys psql rollout health-compose bench bench-before bench-judge kills fuzz nightly-page kind dashboards
.PHONY: $(TARGETS)

# What else stands on the command line and is no target: `make fault payment-slow` means a fault, and lacks its `=on`.
STRAY = $(filter-out $(TARGETS),$(MAKECMDGOALS))

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: $(VENV)/ready-local ## start everything (sets up what is missing) and say where to go
	@$(PY) -m local up

down: $(VENV)/ready-local ## stop everything
	@$(PY) -m local down

reset: $(VENV)/ready-local ## stop everything and delete all data
	@$(PY) -m local reset

status: $(VENV)/ready-local ## show each process: state, pid, port, memory, restarts
	@$(PY) -m local status

logs: $(VENV)/ready-local ## follow the logs: SERVICE=order-service for one, FOLLOW=0 for the last lines only
	@$(PY) -m local logs $(SERVICE) $(if $(filter 0,$(FOLLOW)),--no-follow)

story: $(VENV)/ready-local ## show an order's database row, trace and log lines: ORDER=7; TRACE=id for a trace, JSON=1 for programs
	$(if $(ORDER)$(TRACE),,$(error which one? make story ORDER=7, or make story TRACE=<trace id>))
	@$(PY) -m observability.story $(if $(ORDER),--order "$(ORDER)") $(if $(TRACE),--trace "$(TRACE)") $(if $(filter 1,$(JSON)),--json)

fault: $(VENV)/ready-local ## list the faults, or switch one while the shop runs: payment-slow=on, payment-slow=off; all=off switches all off
	@$(PY) -m scenarios fault $(MAKEOVERRIDES) $(STRAY)

scenario: $(VENV)/ready-local ## run one scenario (load, a fault, a check that requests suffer and the telemetry shows it): NAME=payment-slow
	$(if $(STRAY),$(error write it so: make scenario NAME=$(firstword $(STRAY))))
	@$(PY) -m scenarios run $(NAME) $(ARGS)

scenarios: $(VENV)/ready-local ## run all scenarios, one after the other, and print a table
	@$(PY) -m scenarios run --all $(ARGS)

dataset: $(VENV)/ready-local ## record runs of faults as data for other tools: NAME=payment-slow (all of them without it) TO=dataset SEEDS=2
	@$(PY) -m scenarios dataset $(NAME) $(if $(TO),--to "$(TO)") $(if $(SEEDS),--seeds "$(SEEDS)") $(ARGS)

accuracy: $(VENV)/ready-local ## measure how often make why finds the cause, over scenarios and seeds: ARGS="--replay DIR" asks again about recorded runs
	@$(PY) -m scenarios accuracy $(ARGS)

why: $(VENV)/ready-local ## say what is wrong, where and why, from the telemetry: SINCE=10m if it began then, AT=time for a moment in the past, JSON=1 for programs
	@$(PY) -m observability.why $(if $(SINCE),--since "$(SINCE)") $(if $(AT),--at "$(AT)") $(if $(filter 1,$(JSON)),--json)

load: $(VENV)/ready-local $(VENV)/ready-load ## run a load test, then check every order and charge in the database: SHAPE=smoke|steady|ramp|spike|soak USERS=20 SECONDS=60
	@$(PY) -m loadtest $(if $(SHAPE),--shape $(SHAPE)) $(if $(USERS),--users $(USERS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PROCESSES),--processes $(PROCESSES)) $(ARGS)

load-ui: $(VENV)/ready-local $(VENV)/ready-load ## run a load test from Locust's page, http://127.0.0.1:8089
	@$(PY) -m loadtest --ui $(ARGS)

health: $(VENV)/ready-dev ## check the running stack from end to end
	@$(PY) -m local health

psql: $(VENV)/ready-local ## open the order database
	@$(PY) -m local psql

rotate-keys: $(VENV)/ready-local ## sign new tokens with a new key; old tokens stay valid, with REVOKE=1 they do not
	@$(PY) -m local rotate-keys $(if $(filter-out 0,$(REVOKE)),--revoke)

# Compose itself stops all replicas of a service before it starts the new ones. Here the new ones come first. The pause: the
# gateway counts whole seconds, so for up to 5 s (fail_timeout=4s) it asks no replica that refused it, as a new one did at first.
rollout: ## in Docker Compose: rebuild and replace SERVICE=order-service without a failed request
	@set -eu; old=$$($(COMPOSE) ps -q $(SERVICE)); set -- $$old; \
	$(COMPOSE) up -d --build --no-deps --no-recreate --wait --scale $(SERVICE)=$$(($$# * 2)) $(SERVICE); \
	sleep 6; docker stop $$old; docker rm $$old

health-compose: $(VENV)/ready-dev ## check the stack that runs in Docker Compose from end to end
	@HEALTH_COMPOSE="$(COMPOSE)" $(PY) -m pytest -q tests/health

bench: $(VENV)/ready-local $(VENV)/ready-bench ## measure what telemetry costs, the shop's limits, and what the stack needs; tables in .run/bench
	@$(PY) -m bench all

# Side by side on one machine, which no other way can tell a slower program from a slower machine.
bench-before: $(VENV)/ready-bench ## compare with the newest release, or the commit of a week ago: BEFORE=commit for another
	@set -e; before=$(BEFORE); \
	[ -n "$$before" ] || before=$$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null) || before=$$(git rev-list -1 --before='7 days ago' HEAD); \
	rm -rf .run/before; git worktree prune; git worktree add --quiet --force --detach .run/before "$${before:-HEAD}"; \
	$(PY) -m bench compare default@.run/before default --name before --title "now, beside $$before"

bench-judge: $(VENV)/ready-bench ## fail if .run/bench got worse by more than the rounds differ among themselves; tables in .run/nightly/bench.md
	$(PY) -m bench.judge .run/nightly/bench.md

kills: $(VENV)/ready-dev ## kill processes of the shop under load 200 times; after each, every order must be charged once
	KILL_ROUNDS=17 $(PY) -m pytest tests/e2e/test_kills.py -m slow -k "killed_part or killed_worker" -n 3 --durations 5

fuzz: $(VENV)/ready-dev ## run the tests with generated input, with more input than usual: FUZZ_EXAMPLES=3000
	FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),3000) $(PY) -m pytest tests/embedded/test_fuzz.py tests/embedded/test_loki.py tests/e2e/test_openapi.py \
	  -m "slow or not slow" -k "test_fuzz or no_query or no_parameter or generated" --timeout 3600 -n 2 --dist loadfile --durations 5

nightly-page: $(VENV)/ready-dev ## make one page of the results of the nightly jobs in .run/results
	$(PY) -m bench.page .run/results .run/page

kind: ## load the images into a kind cluster and install a metrics-server: CLUSTER=shop
	sh local/kind.sh $(CLUSTER)

test: $(VENV)/ready-dev ## run all tests that need no Docker and no cluster, except the slow ones
	$(PY) -m pytest -m "not slow and not compose and not kubernetes" -n 4 --dist loadgroup

test-slow: $(VENV)/ready-dev ## run the slow tests: faults, kills, alerts, every query of the dashboards
	$(PY) -m pytest -m slow -n 2 --dist loadfile

test-compose: $(VENV)/ready-dev ## run the tests that need Docker; they start the shop in it, and delete it
	COMPOSE="$(COMPOSE)" $(PY) -m pytest tests/compose -m compose --durations 5

test-kubernetes: $(VENV)/ready-dev ## run the tests that need a Kubernetes cluster, kubectl's current one; `make images` comes first
	KUBECTL="$(KUBECTL)" $(PY) -m pytest tests/kubernetes -m kubernetes --durations 5

# For Kubernetes; Compose builds its own. The cluster has to get them: docs/kubernetes.md.
images: ## build the images that Kubernetes runs, shop/*:dev; TAG=1.2.0 for another tag
	TAG=$(TAG) docker buildx bake --load --file docker-bake.hcl

# What a release is made of; only .github/workflows/release.yml has where to push it to. No cache: what others wrote is not in it.
IMAGES ?= $(shell echo "ghcr.io/$(GITHUB_REPOSITORY)" | tr A-Z a-z)

release-images: ## build and push a release's images for this machine's PLATFORM: VERSION=1.2.0 PLATFORM=amd64 IMAGES=registry/name
	@mkdir -p .run/release
	BY_DIGEST=1 IMAGES=$(IMAGES) TAG=$(VERSION) REVISION=$$(git rev-parse HEAD) SOURCE=$(GITHUB_SERVER_URL)/$(GITHUB_REPOSITORY) \
	  SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) docker buildx bake --file docker-bake.hcl --no-cache \
	  --sbom=true --provenance=mode=max --metadata-file .run/release/built-$(PLATFORM).json

release-join: ## join the images of all platforms under one tag: VERSION=1.2.0; their digests are in .run/release/digests.json
	$(PYTHON) -m release.join $(IMAGES) $(VERSION) .run/release/built-*.json >.run/release/digests.json
	cat .run/release/digests.json

release-files: ## make the files and notes of a release's page in .run/release: VERSION=1.2.0
	PYTHON=$(PYTHON) release/files.sh $(IMAGES) $(VERSION) .run/release/digests.json

backends: ## take Jaeger, Collector, Loki and Prometheus out of their images: BACKEND_BINARIES=.run/backends for tests
	@sh local/backends.sh .run/backends

# missing_resolver: proxy_pass names our own upstream groups through a variable, so no name is ever resolved.
lint: $(VENV)/ready-dev ## check style, types, spelling, shell scripts, the Dockerfile and the gateway's configuration
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy services/servicekit services/*/src local observability loadtest bench scenarios release
	$(VENV)/bin/codespell
	$(VENV)/bin/zizmor --offline --quiet .github
	@if command -v go >/dev/null; then go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 -shellcheck $(VENV)/bin/shellcheck; \
	else echo "actionlint was left out: there is no go here"; test -z "$$GITHUB_ACTIONS"; fi
	$(VENV)/bin/shellcheck .ci/run local/venv.sh local/backends.sh local/kind.sh release/files.sh release/propose.sh observability/alertmanager/start.sh
	$(VENV)/bin/hadolint Dockerfile
	$$($(PY) -c "from local import prometheus; print(prometheus.promtool())") check rules --lint=all --lint-fatal observability/prometheus/rules/*.yml
	@rm -rf $(VENV)/lint-gateway
	$(PY) -m local render-gateway $(VENV)/lint-gateway
	$(VENV)/bin/gixy --skips missing_resolver $(VENV)/lint-gateway/nginx.conf

format: $(VENV)/ready-dev ## format the code
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

lock: $(VENV)/ready-dev ## pin the newest versions of what requirements/*.in ask for
	for name in services migrations embedded console local bench load docs dev; do \
	  $(VENV)/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url \
	    --python-version 3.11 --no-header --no-annotate \
	    "requirements/$$name.in" -o "requirements/$$name.txt" || exit 1; \
	done

docs: $(VENV)/ready-local ## write the generated tables of the docs and docs/telemetry.md; check that each number has a recorded result
	$(PY) docs/configuration.py
	$(PY) docs/contract.py
	$(PY) docs/scenarios.py
	$(PY) docs/measured.py
	$(PY) docs/accuracy.py

site: $(VENV)/ready-docs ## build the pages as a website in .site/html; a link that leads nowhere fails
	@$(PY) docs/website.py

pictures: $(VENV)/ready-dev ## take new screenshots for docs/console.md with Chromium, from the running stack
	@$(PY) docs/pictures.py

slo: $(VENV)/ready-local ## write Prometheus' rules for the SLOs of observability/slo/shop.yaml
	@$(PY) observability/slo/generate.py

dashboards: $(VENV)/ready-dev ## write Grafana's dashboards from observability/grafana
	$(PY) -m observability.grafana

# Touched last, so an interrupted installation is done again.
$(VENV)/ready-%: requirements/%.txt local/venv.sh
	@PYTHON="$(PYTHON)" sh local/venv.sh "$(VENV)" "$<"
	@touch "$@"
