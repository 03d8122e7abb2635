# pgpact: one command each for what one does here. `make` alone prints the list.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The version is what git says, and the program says the same; outside a clone it is a plain word. Nothing here asks the network.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unreleased)
COMMIT := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION) -X main.commit=$(COMMIT)
# -buildvcs=false: a work tree owned by somebody else makes git refuse, and then go build too.
export GOFLAGS := -buildvcs=false
export GOBIN := $(CURDIR)/.cache/bin

GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(GOBIN)/golangci-lint-$(GOLANGCI_VERSION)
FUZZTIME ?= 10s
# The unit tests of a package: gateway and coordinator take a quarter of an hour side by side on two busy cores.
TEST_TIMEOUT ?= 40m
# Clusters that are killed, frozen and cut off take their time, and CI's machine may be slow: this bounds a hang, not the work.
INTEGRATION_TIMEOUT ?= 60m
DEMO_FLAGS ?=
BENCH_FLAGS ?=

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: deps-demo build ## Two Postgres nodes and a gateway on this machine, ready for psql (DEMO_FLAGS="--nodes 3 ...")
	@exec bin/pgpact demo $(DEMO_FLAGS)

.PHONY: test
test: deps deps-drivers vet lint unit fuzz integration ## Everything that must pass: vet, lint, unit, fuzz, integration; installs what it needs
	@echo "make test: all passed"

.PHONY: build
build: ## Build bin/pgpact
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/pgpact ./cmd/pgpact

.PHONY: unit
unit: ## Unit tests, with the race detector
	scripts/gotest.sh -race -timeout $(TEST_TIMEOUT) ./...

.PHONY: integration
integration: ## Integration tests: real Postgres in containers, real gateway processes (RUN=regexp for some of them)
	cd integration && ../scripts/gotest.sh -v -count=1 -p 1 -timeout $(INTEGRATION_TIMEOUT) $(if $(RUN),-run '$(RUN)') ./...

# SEED repeats the choices of a run, which prints it. What a failing run leaves behind is in a directory that its last lines name.
CHAOS_SECONDS = $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS),300)
.PHONY: chaos
chaos: deps ## 3 gateways, 3 nodes, 32 clients, a random fault every 1 to 3 s, then the checkers (SECONDS=300 SEED=number)
	cd integration && PGPACT_TEST_CHAOS_SECONDS=$(CHAOS_SECONDS) PGPACT_TEST_SEED=$(SEED) \
		../scripts/gotest.sh -v -count=1 -timeout $$(($(CHAOS_SECONDS) + 1200))s -run '^TestChaos$$' .

.PHONY: drivers
drivers: deps deps-drivers ## Every Postgres driver's script, compared with plain Postgres; writes docs/compatibility.md (DRIVER=regexp for some)
	cd integration && ../scripts/gotest.sh -v -count=1 -timeout $(TEST_TIMEOUT) -run 'TestDrivers$(if $(DRIVER),/$(DRIVER))' ./drivers

.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZTIME (10s)
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: vet
vet:
	@test -z "$$(gofmt -l .)" || { echo "not gofmt'd:"; gofmt -l .; exit 1; }
	go vet ./...
	cd integration && go vet ./...

.PHONY: lint
lint: $(GOLANGCI) ## golangci-lint over both modules
	$(GOLANGCI) run ./...
	cd integration && $(GOLANGCI) run --config ../.golangci.yml ./...

# Through the Go module proxy, so that a machine that can build pgpact can lint it; the version is part of the name.
$(GOLANGCI):
	GOBIN=$(GOBIN)/install go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(GOBIN)/install/golangci-lint $@

.PHONY: vuln
vuln: ## Known vulnerabilities in what pgpact is built of (needs vuln.go.dev, or PGPACT_VULNDB=URL; CI runs it)
	scripts/govulncheck.sh

.PHONY: bench
bench: deps build ## pgbench against the gateway and one plain Postgres, and a table of ratios (BENCH_FLAGS="-seconds 5 ...")
	go run ./bench $(BENCH_FLAGS)

.PHONY: bench-reads
bench-reads: deps build ## What atomic reads of all balances cost writers and readers, against reads per node
	go run ./bench -reads $(BENCH_FLAGS)

.PHONY: release
release: ## The released files in bin/release: static binary, Debian package, list of its modules (SBOM)
	scripts/build-release.sh bin/release/pgpact
	scripts/sbom.sh bin/release/pgpact bin/release/pgpact.cdx.json
	scripts/build-deb.sh bin/release/pgpact bin/release bin/release/pgpact.cdx.json

.PHONY: image
image: ## The container image, by the Dockerfile (needs a registry for its base images)
	docker build --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) -t pgpact/pgpact:latest .

.PHONY: local-images
local-images: deps build ## Images out of this machine's own files, where no registry can be reached
	scripts/build-postgres-image.sh
	scripts/build-pgpact-image.sh

.PHONY: deps
deps:
	@scripts/install-deps.sh test

.PHONY: deps-drivers
deps-drivers:
	@scripts/install-drivers.sh

.PHONY: deps-demo
deps-demo:
	@scripts/install-deps.sh demo

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin .cache
