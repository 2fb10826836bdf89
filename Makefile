# Every target works from a fresh clone with Go, a C compiler (for -race) and a network. "make" alone lists them.

SHELL := bash
.DEFAULT_GOAL := help

# The directories with a go.mod: the library, and modules with dependencies that the library must not have.
MODULES := $(shell find . -name go.mod -not -path '*/.*/*' -exec dirname {} \; | sort)
NESTED := $(filter-out .,$(MODULES))
comma := ,
empty :=
space := $(empty) $(empty)

# The oldest Go that go.mod supports.
OLDEST_GO = go$(shell go list -m -f '{{.GoVersion}}')

# Built from source on first use, then found in Go's build cache.
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK := go run golang.org/x/vuln/cmd/govulncheck@v1.9.0
APIDIFF := go run golang.org/x/exp/cmd/apidiff@v0.0.0-20261014143641-f0251eb4aa3e

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Runs go test, shows how far it is, and sums up what was skipped. Fewer garbage collections than by default save an eighth of the
# processor time.
GOTEST := GOGC=$${GOGC:-400} go run ./internal/gotest

# The library and its attacks, the longest first. Examples, documents and costs show nothing more with the race detector.
LIBRARY = $(shell go list . ./internal/attacks ./internal/model/... ./... | grep -v -e /examples/ -e '/doccheck$$' -e '/cost$$')

.PHONY: test
test: ## test the library, with the race detector and its own PostgreSQL: two to three minutes on two cores
	@scripts/ensure-postgres.sh
	@$(GOTEST) -short -race -shuffle=on -vet=off -timeout=20m $(LIBRARY)

.PHONY: test-all
test-all: ## test everything, the other modules too, without -short and the race detector: four to six minutes on two cores
	@scripts/ensure-postgres.sh
	@$(GOTEST) -C $(subst $(space),$(comma),$(MODULES)) -timeout=20m ./...

# An older Go may fail to build, or a type may behave differently. Repeating the long tests would show nothing more.
FOR_OLDEST = Example|TestPgxStore$$|TestMemoryStore|TestInvite|TestWebhook|TestVerify|TestNormalize|TestUnstableDomains|TestDomainForms|TestClient

.PHONY: test-oldest
test-oldest: ## build the library with the oldest supported Go, and run its examples and conformance suite
	@scripts/ensure-postgres.sh
	GOTOOLCHAIN=$(OLDEST_GO) go build ./...
	GOTOOLCHAIN=$(OLDEST_GO) $(GOTEST) -short -run='$(FOR_OLDEST)' -timeout=10m . ./clerkapi ./clerkinvitetest ./storetest

.PHONY: nested
nested: ## test the modules that are not the library itself
	@scripts/ensure-postgres.sh
	@$(GOTEST) -C $(subst $(space),$(comma),$(NESTED)) -timeout=10m ./...

.PHONY: contract
contract: ## check against Clerk's OpenAPI files in the folder CLERKINVITE_OPENAPI
	$(GOTEST) -C lab ./contract

.PHONY: quickstart
quickstart: ## run examples/quickstart and compare what it prints
	@set -o pipefail; go run ./examples/quickstart | diff -u examples/quickstart/expected.txt - && echo "as expected"

.PHONY: model
model: ## explore the protocol's model completely, and replay its traces against the library
	go test -count=1 -v ./internal/model/protocol

.PHONY: fuzz
fuzz: ## fuzz each target for FOR (10s)
	scripts/fuzz.sh $(or $(FOR),10s)

.PHONY: mutants
mutants: ## inject bugs into the library, each of which a test must catch
	@scripts/ensure-postgres.sh
	go run ./internal/mutants $(ARGS)

.PHONY: attack
attack: ## try to break every promise, for hours; PARTS="points soak" runs some parts
	go run -C lab ./attack -root .. $(PARTS)

.PHONY: bench
bench: ## compare Invite with the flow written by hand and ReserveMany with plain SQL (minutes); ARGS=-quick to see that it works
	go run -C lab ./bench $(ARGS)

.PHONY: vuln
vuln: ## list known vulnerabilities in dependencies (asks vuln.go.dev)
	@for dir in $(MODULES); do echo "govulncheck: $$dir"; (cd $$dir && $(GOVULNCHECK) ./...) || exit 1; done

.PHONY: live
live: ## try the flow on a real Clerk: CLERK_SECRET_KEY=sk_test_… make live ARGS=-yes (prints the plan without)
	go run ./internal/live $(ARGS)

.PHONY: fmt
fmt: ## format
	gofmt -s -w .

.PHONY: fmt-check
fmt-check: ## fail if fmt would change something
	@changed=$$(gofmt -s -l .); if [ -n "$$changed" ]; then echo "gofmt would change:"; echo "$$changed"; exit 1; fi

.PHONY: vet
vet: ## go vet, all modules, or VET="./lab"
	@for dir in $(or $(VET),$(MODULES)); do echo "go vet: $$dir"; (cd $$dir && go vet ./...) || exit 1; done

# CI lints some modules only; the others are vetted by go test.
LINT := $(MODULES)

.PHONY: lint
lint: ## golangci-lint, all modules (the first time builds it: minutes); LINT="./cmd/clerkinvite" for some
	@$(GOLANGCI_LINT) version
	@printf '%s\n' $(LINT) | xargs -P 2 -I{} bash -c \
		'out=$$(cd {} && $(GOLANGCI_LINT) run --allow-parallel-runners 2>&1); status=$$?; printf "golangci-lint: %s\n%s\n" {} "$$out"; exit $$status'

.PHONY: tidy-check
tidy-check: ## fail if go mod tidy would change something
	@for dir in $(filter-out ./cmd/clerkinvite,$(MODULES)); do echo "go mod tidy -diff: $$dir"; (cd $$dir && go mod tidy -diff) || exit 1; done
	cmd/clerkinvite/tidy.sh

.PHONY: apidiff
apidiff: ## list changes of the exported API since the last release
	@APIDIFF="$(APIDIFF)" scripts/apidiff.sh

.PHONY: release-check
release-check: ## check that the version in CHANGELOG.md can be released
	@scripts/release-check.sh

.PHONY: ci
ci: ## everything CI runs
	bash .ci/run
