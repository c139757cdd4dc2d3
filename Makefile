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

.PHONY: help up down reset status logs health test test-slow test-compose test-kubernetes images lint format lock docs pictures slo story load load-ui rotate-keys psql rollout health-compose bench dashboards

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: $(VENV)/ready-local ## start everything (sets up what is missing) and say where to go
	@$(PY) -m local up

down: $(VENV)/ready-local ## stop everything
	@$(PY) -m local down

reset: $(VENV)/ready-local ## stop everything and delete all data
	@$(PY) -m local reset

status: $(VENV)/ready-local ## show each part: state, pid, port, memory, restarts
	@$(PY) -m local status

logs: $(VENV)/ready-local ## follow the logs: SERVICE=order-service for one, FOLLOW=0 for the last lines only
	@$(PY) -m local logs $(SERVICE) $(if $(filter 0,$(FOLLOW)),--no-follow)

story: $(VENV)/ready-local ## show an order: ORDER=7, its row, trace and log lines; TRACE=id for a trace, JSON=1 for programs
	$(if $(ORDER)$(TRACE),,$(error which one? make story ORDER=7, or make story TRACE=<trace id>))
	@$(PY) -m observability.story $(if $(ORDER),--order "$(ORDER)") $(if $(TRACE),--trace "$(TRACE)") $(if $(filter 1,$(JSON)),--json)

load: $(VENV)/ready-local $(VENV)/ready-load ## put load on the stack and check the books: SHAPE=smoke|steady|ramp|spike|soak USERS=20 SECONDS=60
	@$(PY) -m loadtest $(if $(SHAPE),--shape $(SHAPE)) $(if $(USERS),--users $(USERS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PROCESSES),--processes $(PROCESSES)) $(ARGS)

load-ui: $(VENV)/ready-local $(VENV)/ready-load ## the same from Locust's page, http://127.0.0.1:8089
	@$(PY) -m loadtest --ui $(ARGS)

health: $(VENV)/ready-dev ## check the running stack from end to end
	@$(PY) -m local health

psql: $(VENV)/ready-local ## open the order database
	@$(PY) -m local psql

rotate-keys: $(VENV)/ready-local ## sign new tokens with a new key; the old ones stay valid. REVOKE=1: none does, at once
	@$(PY) -m local rotate-keys $(if $(filter-out 0,$(REVOKE)),--revoke)

# Compose itself stops all replicas of a service before it starts the new ones. Here the new ones come first. The pause:
# for 4 s (fail_timeout) the gateway asks no replica that refused it, as a new one did until it listened.
rollout: ## in Docker Compose: rebuild and replace SERVICE=order-service without a failed request
	@set -eu; old=$$($(COMPOSE) ps -q $(SERVICE)); set -- $$old; \
	$(COMPOSE) up -d --build --no-deps --no-recreate --wait --scale $(SERVICE)=$$(($$# * 2)) $(SERVICE); \
	sleep 4; docker stop $$old; docker rm $$old

health-compose: $(VENV)/ready-dev ## check the stack that runs in Docker Compose from end to end
	@HEALTH_COMPOSE="$(COMPOSE)" $(PY) -m pytest -q tests/health

bench: $(VENV)/ready-local $(VENV)/ready-bench ## measure what telemetry costs, where the shop ends, what the stack needs; tables in .run/bench
	@$(PY) -m bench all

test: $(VENV)/ready-dev ## run the tests that take minutes at most
	$(PY) -m pytest -m "not slow and not compose and not kubernetes" -n 5 --dist loadgroup

test-slow: $(VENV)/ready-dev ## run the slow tests: faults, kills, alerts, every query of the dashboards
	$(PY) -m pytest -m slow -n 2 --dist loadfile

test-compose: $(VENV)/ready-dev ## run the tests that need Docker; they start the shop in it, and delete it
	COMPOSE="$(COMPOSE)" $(PY) -m pytest tests/compose -m compose --durations 5

test-kubernetes: $(VENV)/ready-dev ## run the tests that need a Kubernetes cluster, kubectl's current one; `make images` comes first
	KUBECTL="$(KUBECTL)" $(PY) -m pytest tests/kubernetes -m kubernetes --durations 5

# For Kubernetes; Compose builds its own. The cluster has to get them: docs/kubernetes.md.
images: ## build the images that Kubernetes runs, shop/*:dev; TAG=1.2.0 for another tag
	for name in auth user product order payment; do \
	  docker build --quiet --target service --build-arg SERVICE=$$name --tag shop/$$name-service:$(TAG) . || exit 1; \
	done
	for name in migrations gateway-telemetry embedded-backend loadtest; do \
	  docker build --quiet --target $$name --tag shop/$$name:$(TAG) . || exit 1; \
	done

# missing_resolver: proxy_pass names our own upstream groups through a variable, so no name is ever resolved.
lint: $(VENV)/ready-dev ## check style, types, shell scripts, the Dockerfile and the gateway's configuration
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy services/servicekit services/*/src local observability loadtest bench
	$(VENV)/bin/shellcheck .ci/run local/venv.sh observability/alertmanager/start.sh
	$(VENV)/bin/hadolint Dockerfile
	$$($(PY) -c "from local import prometheus; print(prometheus.promtool())") check rules --lint=all --lint-fatal observability/prometheus/rules/*.yml
	@rm -rf $(VENV)/lint-gateway
	$(PY) -m local render-gateway $(VENV)/lint-gateway
	$(VENV)/bin/gixy --skips missing_resolver $(VENV)/lint-gateway/nginx.conf

format: $(VENV)/ready-dev ## put the code into shape
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

lock: $(VENV)/ready-dev ## pin the newest versions of what requirements/*.in ask for
	for name in services migrations embedded console local bench load dev; do \
	  $(VENV)/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url \
	    --python-version 3.11 --no-header --no-annotate \
	    "requirements/$$name.in" -o "requirements/$$name.txt" || exit 1; \
	done

docs: $(VENV)/ready-local ## write the tables of settings from the code, docs/telemetry.md from the contract
	$(PY) docs/configuration.py
	$(PY) docs/contract.py

pictures: $(VENV)/ready-dev ## take the pictures of docs/console.md anew, with Chromium, from the stack that runs
	@$(PY) docs/pictures.py

slo: $(VENV)/ready-local ## write Prometheus' rules for the SLOs of observability/slo/shop.yaml
	@$(PY) observability/slo/generate.py

dashboards: $(VENV)/ready-dev ## write Grafana's dashboards from observability/grafana
	$(PY) -m observability.grafana

# Touched last, so an interrupted installation is done again.
$(VENV)/ready-%: requirements/%.txt local/venv.sh
	@PYTHON="$(PYTHON)" sh local/venv.sh "$(VENV)" "$<"
	@touch "$@"
