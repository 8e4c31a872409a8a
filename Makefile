# `make` lists the targets; `make check` is what CI runs.

GO       ?= go
VERSION  ?= dev
PENSTOCK  = $(GO) run ./cmd/penstock

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do \
		printf '  %-11s %s\n' "$$name" "$$text"; done

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

# What the tests start beside themselves.
SERVERS = redis-server=redis-server '/usr/lib/postgresql/*/bin/postgres=postgresql'

# The tests beside the code do without the profile of cmd/penstock/default.pgo, for
# which everything would be compiled once more.
.PHONY: test
test: ## the tests beside the code, with a real Redis and PostgreSQL
	@scripts/need $(SERVERS)
	$(GO) test -pgo=off -timeout 240s ./...

.PHONY: race
race: ## the same with the race detector
	@scripts/need gcc=gcc $(SERVERS)
	CGO_ENABLED=1 $(GO) test -pgo=off -race -timeout 480s ./...

# The version is part of the path, so that another one is built when it changes.
LINT = .cache/golangci-lint-v2.15.0/golangci-lint

.PHONY: lint
lint: $(LINT) ## golangci-lint, as .golangci.yml says
	$(LINT) run ./...
	cd e2e && ../$(LINT) run --config ../.golangci.yml ./...

$(LINT):
	GOBIN=$(CURDIR)/$(@D) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: fuzz
FUZZTIME ?= 10s
fuzz: ## every fuzz target for FUZZTIME
	@for package in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n 1 dirname | sort -u); do \
		for target in $$($(GO) test -list '^Fuzz' ./$$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) ./$$package || exit 1; \
		done; \
	done

.PHONY: e2e
e2e: ## real clients, faults and scenarios against the real binary
	@scripts/need $(SERVERS)
	e2e/test.sh

.PHONY: scenarios
scenarios: ## the scenarios alone, with their table of figures
	cd e2e && $(GO) test -count=1 -timeout 600s -v ./scenarios

.PHONY: deploy
deploy: ## the files of deploy/ with promtool, and the image with buildah
	deploy/check.sh
	deploy/image.sh

.PHONY: bench
bench: ## the gateway's cost beside other proxies
	$(GO) run ./bench

.PHONY: bench-redis
bench-redis: ## calls and time that limits shared through Redis cost
	@scripts/need redis-server=redis-server
	$(GO) test -count=1 -timeout 120s -run '^TestCallsOfLargeLimits$$' -bench . -v ./limits/redisstore

.PHONY: pgo
pgo: ## renew the profile by which go build optimises the gateway
	$(GO) run ./bench -profile cmd/penstock/default.pgo

.PHONY: docs
docs: ## write the configuration's reference and schema anew
	$(GO) test ./config -run 'Reference|Schema' -update

.PHONY: image
image: ## the container image penstock:VERSION, with docker
	docker build --build-arg VERSION=$(VERSION) -t penstock:$(VERSION) .

.PHONY: clean
clean: ## what was built and installed here
	rm -rf penstock dist .cache e2e/node/node_modules
