# `make` lists the targets; `make check` is what CI runs.

GO       ?= go
VERSION  ?= dev
PENSTOCK  = $(GO) run ./cmd/penstock

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do \
		printf '  %-10s %s\n' "$$name" "$$text"; done

.PHONY: build
build: ## the static binary ./penstock
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o penstock ./cmd/penstock

.PHONY: run
run: ## the gateway on 127.0.0.1:8080, with the provider keys of the environment
	$(PENSTOCK)

.PHONY: demo
demo: ## the gateway before a simulated provider, no key needed
	$(PENSTOCK) demo

.PHONY: check
check: vet test race lint e2e deploy ## everything that CI runs

.PHONY: vet
vet: ## formatting and go vet
	@files=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$files" ] || { echo "gofmt -w these:"; echo "$$files"; exit 1; }
	$(GO) vet ./...
	cd e2e && $(GO) vet ./...

.PHONY: test
test: ## the tests beside the code
	$(GO) test -timeout 120s ./...

.PHONY: race
race: ## the same with the race detector
	@scripts/need gcc=gcc
	CGO_ENABLED=1 $(GO) test -race -timeout 300s ./...

# The version is part of the path, so that another one is built when it changes.
LINT = .cache/golangci-lint-v2.15.0/golangci-lint

.PHONY: lint
lint: $(LINT) ## golangci-lint, as .golangci.yml says
	$(LINT) run ./...
	cd e2e && ../$(LINT) run --config ../.golangci.yml ./...

$(LINT):
	GOBIN=$(CURDIR)/$(@D) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: e2e
e2e: ## real clients and the scenarios against the real binary
	GO="$(GO)" e2e/test.sh

.PHONY: deploy
deploy: ## the files of deploy/, with promtool
	deploy/check.sh

.PHONY: bench
bench: ## the gateway's cost beside other proxies
	$(GO) run ./bench
