# `make help` lists the targets. Only Go is needed: tests that want Kafka (Java
# and Maven) or Redis (redis-server) are skipped and named where these are
# missing, and fail where CI=true.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Tools come from a module of their own, so that users do not build them.
TOOL := go tool -modfile=tools/go.mod
# Packages to work on, for example `make test PKG=./internal/fold`.
PKG ?= ./...
# The binaries that `make build` leaves in bin/.
BIN := bin
# How many seeds of the simulation are part of the tests.
CI_SEEDS ?= 1000
# The race detector needs a C compiler; without one Go switches cgo off.
RACE := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)
# How long each fuzz target runs.
FUZZTIME ?= 20s
# How long make torture breaks things, and the brokers it has.
DURATION ?= 10m
BROKERS ?= 1
# Events that Redis loses in make heal.
HEAL_EVENTS ?= 300000
# Benchmarks to run, and how often each.
BENCH ?= .
COUNT ?= 1
# How many seeds `make simulate` runs.
SEEDS ?= 10000

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the commands into bin/
	go build -trimpath -o $(BIN)/ ./cmd/...

# The tools module holds the tests of deploy/. gotestsum ends with the skipped
# tests, each with its reason, and the line "DONE n tests, m skipped". The
# search and the simulation take only a few seeds under the race detector, so
# they run in full before it.
.PHONY: test
test: ## Vet and test, with the race detector; lists what was skipped and why
	go vet $(PKG)
	go -C tools vet ./...
	go -C tools test ./...
	$(if $(RACE),$(if $(filter ./... ./internal/search,$(PKG)),go test -timeout 20m ./internal/search))
	$(if $(filter ./... ./internal/simulation,$(PKG)),go test -timeout 20m ./internal/simulation -run 'TestSeeds$$' -seeds $(CI_SEEDS))
	$(TOOL) gotestsum --format pkgname --format-hide-empty-pkg -- $(RACE) -timeout 15m $(PKG)
	$(if $(RACE),,@echo 'skipped: the race detector, which needs a C compiler')

.PHONY: race
race: ## Test with the race detector, plainly
	go test -race -timeout 15m $(PKG)

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME
	@grep -rlE '^func Fuzz' --include='*_test.go' cmd internal | while read -r file; do \
	  for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do \
	    echo "== $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")"; \
	  done; \
	done

.PHONY: bench
bench: ## Measure the consumer against a naive loop and the bare protocol, on real services
	go run ./cmd/bench $(ARGS)

.PHONY: microbench
microbench: ## Run the packages' benchmarks; BENCH selects, COUNT repeats
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) $(PKG)

.PHONY: search
search: ## Search the protocol: small worlds, 100,000 seeds, mutations; ARGS: -long, -seed N
	go test ./internal/search -count=1 -v -timeout 2h $(ARGS)

.PHONY: simulate
simulate: ## Run SEEDS seeds of the whole system with faults; failing ones print how to run them again
	go test ./internal/simulation -run 'TestSeeds$$' -count=1 -v -timeout 6h -seeds $(SEEDS)

.PHONY: mutations
mutations: ## Break the code step by step, and see that the simulation notices; writes docs/proofs/mutations.md
	go test ./internal/mutation -run Caught -count=1 -v -timeout 12h -mutate -table ../../docs/proofs/mutations.md

.PHONY: lint
lint: ## Check the style and the import rules; the first run builds the linter
	$(TOOL) golangci-lint run $(PKG)

.PHONY: generate
generate: ## Write generated files again
	go generate ./...

.PHONY: check-generated
check-generated: generate ## Fail when generated files are out of date
	@git diff --exit-code -- . || { echo 'generated files are out of date: run make generate and commit'; exit 1; }

.PHONY: up
up: ## Start Kafka, Redis, the consumer and the simulator in containers
	docker compose up --build --detach --wait

.PHONY: down
down: ## Stop the containers and delete their data
	docker compose down --volumes

.PHONY: e2e
e2e: ## Test the rooms that use real Kafka and Redis; skips nothing
	CI=true go test $(RACE) -count=1 -timeout 20m $$(grep -rl 'internal/testenv"' --include='*_test.go' cmd internal examples | xargs -n 1 dirname | sort -u | sed 's|^|./|')

.PHONY: torture
torture: ## Break real services for DURATION under load, then check everything; ARGS: -seed, -rate, -consumers
	CI=true go test -count=1 -timeout 24h -v -run '^TestTorture$$' ./internal/torture -duration $(DURATION) -brokers $(BROKERS) $(ARGS)

.PHONY: heal
heal: ## Measure how long Redis takes to hold again what it lost, of HEAL_EVENTS events
	CI=true go test -count=1 -timeout 30m -v -run '^TestHeal$$' ./internal/torture -heal-events $(HEAL_EVENTS)

.PHONY: handover
handover: ## Measure how long a rolling restart stops a partition, on real services
	CI=true go test -count=1 -timeout 10m -v -run '^TestHandover$$' ./internal/torture -handovers 24
