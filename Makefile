# `make help` lists what there is. Everything works with only Go and a shell.
GO ?= go
FUZZTIME ?= 20s

.PHONY: help build check test race fuzz e2e soak bench vuln clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

build: ## the static binary ./hooksidecar
	CGO_ENABLED=0 $(GO) build -trimpath -o hooksidecar ./cmd/hooksidecar

check: ## formatting, vet, staticcheck, module sums
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod verify

test: ## all tests, as the README says
	$(GO) test ./...

race: ## all tests with the race detector
	$(GO) test -race ./...

fuzz: ## every fuzz target for FUZZTIME
	GO=$(GO) FUZZTIME=$(FUZZTIME) sh .ci/fuzz

e2e: ## only the end-to-end tests with the real binary
	$(GO) test -count=1 ./internal/e2e

soak: ## the long kill loop (minutes)
	HOOKSIDECAR_SOAK=1 $(GO) test -count=1 -timeout 60m -v ./internal/e2e

bench: ## the figures of docs/PERFORMANCE.md, as ratios in one run
	$(GO) run ./internal/bench

vuln: ## known vulnerabilities in what we use; says "not run" without the database
	GO=$(GO) sh .ci/vuln

clean: ## what the build made
	rm -rf hooksidecar dist
