# Everything that a developer or CI calls. `make help` lists it.

MODULES := proto pkg services examples
HONE    := bin/hone
SHELL   := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where scripts/setup puts what Hone runs on; the same rule as embedded.CacheDir.
ifeq ($(shell uname -s),Darwin)
CACHE := $(if $(HONE_CACHE),$(HONE_CACHE),$(HOME)/Library/Caches/hone)
else
CACHE := $(if $(HONE_CACHE),$(HONE_CACHE),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/hone)
endif
export PATH := $(CACHE)/bin:$(PATH)

# Extra arguments for demo, test and the benchmarks, such as ARGS=--once.
ARGS ?=
# The race detector needs a C compiler.
RACE := $(shell command -v "$$(go env CC 2>/dev/null)" >/dev/null 2>&1 && echo -race)
# Of test-faults, bench-recall, bench-enrich, bench-query and bench-erase.
SIZE ?=
SEED ?=
# What proto-breaking compares with.
AGAINST ?= main

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Fetch and build, once, what Hone runs on (ClickHouse, Weaviate, the model), into the user's cache folder
	@scripts/setup

.PHONY: tools
tools: ## The same, and the tools of generate, lint and drift
	@scripts/setup --tools

.PHONY: build
build: ## Build bin/hone
	@command -v go >/dev/null || { echo "Go 1.26 or newer is missing: https://go.dev/dl" >&2; exit 1; }
	go build -trimpath -o $(HONE) ./services/hone

.PHONY: demo
demo: setup build ## A small shop's assistant and 300 sessions on the whole pipeline; ARGS=--once stops at the end
	$(HONE) demo $(ARGS)

# --- checks -------------------------------------------------------------------

.PHONY: test
test: setup ## Set-up check, go vet, and all tests with -race, the pipeline test on real parts included
	@$(if $(RACE),:,echo "note: no C compiler here, so the tests run without the race detector" >&2)
	@for m in $(MODULES); do \
	  echo "== $$m: go vet"; (cd $$m && go vet ./...); \
	  echo "== $$m: go test $(RACE)"; (cd $$m && go test $(RACE) -timeout 20m ./... $(ARGS)); \
	done

.PHONY: test-kafka
test-kafka: ## The stream tests against Apache Kafka, fetched by Maven (needs Java 17)
	@scripts/setup --kafka
	cd pkg && HONE_TEST_KAFKA=real go test $(RACE) -count 1 -timeout 10m ./stream/... $(ARGS)

.PHONY: test-convergence
test-convergence: setup ## 100 real sessions in 1,000 random orders, doubled, split and with restarts: one state
	cd services && go test -timeout 30m -run RealSessionsConverge ./enricher/internal/enrich -orders 1000 $(ARGS)

.PHONY: test-faults
test-faults: setup ## Kill, pause and starve every part under load, and judge that nothing is lost or doubled: 15 minutes; SIZE=full for 1,000,000 events and 200 kills; SEED
	go run ./services/hone/internal/faults/run -size "$(SIZE)" -seed "$(SEED)" $(ARGS)

.PHONY: test-outage
test-outage: setup ## Send 1,000 events/s while Kafka is away for 60 s, and judge likewise: 4 minutes; SEED
	go run ./services/hone/internal/faults/run -outage 60s -seed "$(SEED)" $(ARGS)

.PHONY: test-containers
test-containers: ## The pipeline test against the official images of Kafka, ClickHouse and Weaviate
	@docker info >/dev/null 2>&1 || { echo "make test-containers needs a running container engine (docker info fails here). make test runs the same pipeline without one." >&2; exit 1; }
	@scripts/setup --model
	cd services && go test -tags containers -timeout 20m -run Containers ./... $(ARGS)

.PHONY: lint
lint: tools ## golangci-lint on every module, buf lint on the schemas
	@for m in $(MODULES); do echo "== $$m: golangci-lint"; (cd $$m && golangci-lint run --config ../.golangci.yml ./...); done
	buf lint

.PHONY: proto-breaking
proto-breaking: tools ## Whether the schemas break those of AGAINST (a git ref; main)
	@old=$$(mktemp -d) && trap 'rm -rf "$$old"' EXIT; \
	git archive $(AGAINST) buf.yaml proto | tar -x -C "$$old"; \
	cp -R proto/third_party "$$old/proto/"; \
	buf breaking --against "$$old"

.PHONY: vulnerabilities
vulnerabilities: tools ## Known vulnerabilities in what is called
	@for m in $(MODULES); do echo "== $$m: govulncheck"; (cd $$m && govulncheck ./...); done

# --- generated files ------------------------------------------------------------

.PHONY: generate
generate: tools ## Generate Go and OpenAPI from proto/
	buf lint
	buf generate --template proto/buf.gen.yaml

.PHONY: dictionary
dictionary: setup ## Write the data dictionary of deploy/queries from the comments in the schema of ClickHouse
	cd pkg && go run ./clickhouse/internal/dictionary ../deploy/queries/README.md

.PHONY: tidy
tidy: ## go mod tidy in every module
	@for m in $(MODULES); do echo "== $$m: go mod tidy"; (cd $$m && go mod tidy); done

.PHONY: drift
drift: generate dictionary tidy ## Generate and tidy, and fail where that changes what is committed
	@changed=$$(git status --porcelain -- proto/gen deploy/queries '*go.mod' '*go.sum' go.work.sum); \
	if [ -n "$$changed" ]; then \
	  echo "not up to date in git; run make generate dictionary tidy and commit:" >&2; echo "$$changed" >&2; \
	  git --no-pager diff --stat -- proto/gen deploy/queries '*go.mod' '*go.sum' go.work.sum >&2; exit 1; \
	fi; echo "generated files and go.mod are up to date"

# --- benchmarks, each beside a yardstick of the same run ---------------------------

.PHONY: bench
bench: bench-stream bench-collector bench-embed bench-enrich bench-query bench-erase bench-recall bench-import ## All benchmarks

.PHONY: eval-signals
eval-signals: ## The model of dissatisfaction, on people that it has not seen, beside the plain rate
	cd services && go run ./enricher/internal/signals/train $(ARGS)

.PHONY: bench-import
bench-import: setup build ## Events/s end to end, and accepted-to-recallable p50 and p99 at 200 events/s
	$(HONE) bench import $(ARGS)

.PHONY: bench-recall
bench-recall: setup build ## p50 and p99 of Recall at 1, 8 and 32 clients over 10,000 exchanges, beside the bare parts; SIZE=full for 1,000,000
	$(HONE) bench recall $(if $(filter full,$(SIZE)),--exchanges 1000000) $(ARGS)

.PHONY: bench-embed
bench-embed: setup ## Texts/s of the embedder against the bare model
	cd pkg && go test -run '^$$' -bench 'Embed' -benchtime 5s ./embedding $(ARGS)

.PHONY: bench-backtest
bench-backtest: setup ## Seconds to run a policy over 100,000 stored decisions
	cd services && go test -run '^$$' -bench 'Backtest$$' -benchtime 3x -timeout 20m ./router $(ARGS)

.PHONY: bench-stream
bench-stream: ## Records/s of publisher and runner against bare kafka-go
	cd pkg && go test -run '^$$' -bench . -benchtime 2s ./stream $(ARGS)

.PHONY: bench-collector
bench-collector: ## Accepted events/s, p50 and p99 beside a bare net/http + franz-go handler
	cd services && go run ./collector/internal/bench $(ARGS)

# --- evaluations: quality on ../shared/data ----------------------------------------

.PHONY: eval-recall
eval-recall: setup ## Recall on BANKING77: @1, @5, rejection of unknown questions, calibration; ARGS=-fit fits the weights anew
	cd services && go test -run '^$$' -bench Eval -benchtime 1x -timeout 60m ./embedder/internal/relevance $(ARGS)

.PHONY: eval-cases
eval-cases: setup ## Cases on BANKING77 against its intents: V-measure, purity, number, over ten orders, without and with the periodic pass
	cd services && go test -run '^$$' -bench EvalCases -benchtime 1x ./embedder $(ARGS)

.PHONY: eval-pii
eval-pii: ## What redaction finds and misses in presidio's texts, by type, beside hard negatives, and its speed; ARGS="-show 20" prints mistakes
	go run ./services/enricher/internal/redact/eval $(ARGS)

.PHONY: train-pii-names
train-pii-names: ## Make the tagger's lists of names anew, from the Python package Faker: WHEEL=faker-40.63.0-py3-none-any.whl
	go run ./services/enricher/internal/redact/gazetteer "$(WHEEL)" services/enricher/internal/redact/names.bin

.PHONY: train-pii
train-pii: ## Train the tagger of names, addresses and places anew, into services/enricher/internal/redact/tagger.bin
	go run ./services/enricher/internal/redact/eval -train services/enricher/internal/redact/tagger.bin

.PHONY: bench-enrich
bench-enrich: setup ## Events/s of the enricher for new and returning sessions at 100,000 stored events, beside a bare insert of the same rows; SIZE=full for 10,000,000
	cd services && go run ./enricher/internal/bench $(if $(filter full,$(SIZE)),-stored 10000000 -events 200000) $(ARGS)

.PHONY: bench-query
bench-query: setup ## The sample queries and trends at 1,000,000 events, or SIZE=full for 10,000,000: median, p99, rows and bytes read, beside a plain scan
	cd services && go run ./enricher/internal/benchquery $(if $(filter full,$(SIZE)),-events 10000000) $(ARGS)

.PHONY: bench-erase
bench-erase: setup build ## Seconds to erase a user with 1,000 events among 1,000,000, or SIZE=full for 10,000,000, beside bare deletes; fails where the receipt is not true
	$(HONE) bench erase $(if $(filter full,$(SIZE)),--events 10000000) $(ARGS)

.PHONY: clean
clean: ## Remove what was built here; the cache stays
	rm -rf bin
