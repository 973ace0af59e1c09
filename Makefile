# All commands for developers and the CI. `make help` lists them.

# Images.
IMG ?= headscale-operator/operator:latest
APIKEY_MANAGER_IMG ?= headscale-operator/apikey-manager:latest
CONTAINER_TOOL ?= docker
# Other platforms, such as linux/amd64,linux/arm64, need a builder that supports them.
PLATFORM ?=
# Build and base images that override those of the Dockerfiles, and further flags.
GO_IMAGE ?=
BASE_IMAGE ?=
DOCKER_FLAGS ?=
# The namespaces that the installed operator watches, separated by commas; empty: all.
WATCH_NAMESPACES ?=

# What the binaries print for --version.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
DATE ?= $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)

# Versions of Headscale that the tests run against, separated by commas, or all.
HEADSCALE_VERSIONS ?= all
# Packages and further flags of `make test`.
# The longest one is begun first: as the last one it would run alone for most of its time.
PKG ?= ./test/integration ./...
# How many packages are tested side by side. They wait for most of their time, so twice the processors of a small machine.
PARALLEL ?= 4
TEST_FLAGS ?=
# The race detector needs a C compiler, which is not a requirement here.
RACE ?= $(shell test "$$(go env CGO_ENABLED)" = 1 && command -v "$$(go env CC)" >/dev/null && echo -race)

GO_BUILD = CGO_ENABLED=0 go build -trimpath
# Without the tracing pages of gRPC, which are not served, the linker can omit a fifth
# of the programs: docs/decisions/2026-11-24-small-sidecar.md.
TAGS = grpcnotrace
LDFLAGS = -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)
SERVERS = go run ./test/servers
KUBECTL ?= kubectl

CONTROLLER_GEN = bin/controller-gen
GOLANGCI_LINT = bin/golangci-lint
KUSTOMIZE = bin/kustomize
PROMTOOL = bin/promtool

# Where generated files are. They are committed, so that a clone works as it is.
GENERATED = api/v1beta1/zz_generated.deepcopy.go internal/resources/zz_generated.configkeys.go config/crd/bases config/rbac/role.yaml \
  config/prometheus/prometheusrule.yaml charts/headscale-operator/files

.DEFAULT_GOAL := help

##@ Development

.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z][a-z-]*:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: plugin ## Build the three binaries into bin/.
	$(GO_BUILD) -tags $(TAGS) -ldflags "$(LDFLAGS)" -o bin/manager ./cmd
	$(GO_BUILD) -tags $(TAGS) -ldflags "$(LDFLAGS)" -o bin/apikey-manager ./cmd/apikey-manager

.PHONY: plugin
plugin: ## Build kubectl headscale into bin/: kubectl finds it on the PATH.
	$(GO_BUILD) -tags $(TAGS) -ldflags "$(LDFLAGS)" -o bin/kubectl-headscale ./cmd/kubectl-headscale
	cp internal/plugin/kubectl_complete-headscale bin/

.PHONY: test
test: ## Build the servers and run all tests on them. PKG=./internal/... selects packages.
	@assets=$$($(SERVERS) --headscale $(HEADSCALE_VERSIONS) --program =./cmd/... --print) || exit 1; \
	echo "go test $(RACE) $(PKG)"; \
	KUBEBUILDER_ASSETS="$$assets" go test $(RACE) -count=1 -p $(PARALLEL) -timeout 60m $(TEST_FLAGS) $(PKG)

# Needs neither Headscale nor the race detector.
.PHONY: test-oldest
test-oldest: bin/helm3 bin/helm4 $(KUSTOMIZE) ## Build the oldest supported Kubernetes and run the tests of the operator and the chart on it.
	@assets=$$(KUBEBUILDER_ASSETS= $(SERVERS) --headscale none --oldest --print) || exit 1; \
	KUBEBUILDER_ASSETS="$$assets" go test -count=1 -p $(PARALLEL) -timeout 30m $(TEST_FLAGS) ./internal/kube/... ./internal/controller/... ./test/chart

.PHONY: test-slow
test-slow: ## Run the long randomized tests of both credentials' reliability.
	@assets=$$($(SERVERS) --headscale $(HEADSCALE_VERSIONS) --print) || exit 1; \
	KUBEBUILDER_ASSETS="$$assets" go test -count=1 -timeout 180m -v ./test/reliability ./test/reliability/preauthkeys -args -ginkgo.label-filter=slow -ginkgo.timeout=170m $(TEST_FLAGS)

# How long each target runs.
FUZZ_TIME ?= 30s

.PHONY: fuzz
fuzz: ## Run every fuzz target (FUZZ_TIME=30s each).
	FUZZ_TIME=$(FUZZ_TIME) hack/fuzz

.PHONY: bench
bench: images ## Measure resource usage and latency of the programs (BENCH_FLAGS="--only=operator --sizes=20 --rest=30s").
	@assets=$$($(SERVERS) --backup --print) || exit 1; \
	KUBEBUILDER_ASSETS="$$assets" go run ./test/bench --images $(IMAGES_DIR) $(BENCH_FLAGS)

.PHONY: demo
demo: ## Run a demonstration on an embedded control plane until Ctrl-C; DEMO_EXIT=1: exit at the end.
	@$(SERVERS) --program bin/demo=./test/demo
	@bin/demo

.PHONY: servers
servers: ## Build missing servers for the tests and the demo.
	@$(SERVERS) --headscale $(HEADSCALE_VERSIONS)

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format the code.
	$(GOLANGCI_LINT) fmt

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Check the code with the linters.
	$(GOLANGCI_LINT) run
	cd hack/images && ../../$(GOLANGCI_LINT) run
	cd hack/bundle && ../../$(GOLANGCI_LINT) run

.PHONY: structure
structure: ## Print the size of all packages and functions, their imports by layer, and the programs (STRUCTURE_FLAGS="-tests LOG": test times, too).
	go run ./hack/structure -build $(STRUCTURE_FLAGS)

##@ Generated files

.PHONY: generate
generate: $(CONTROLLER_GEN) ## Generate the deep-copy methods of the API, and the table of Headscale's config keys.
	$(CONTROLLER_GEN) object paths=./api/...
	go run ./hack/configkeys

.PHONY: manifests
manifests: $(CONTROLLER_GEN) ## Generate the CustomResourceDefinition and the operator's role.
	$(CONTROLLER_GEN) crd:generateEmbeddedObjectMeta=false rbac:roleName=manager-role \
	  paths=./api/... paths=./internal/controller/... \
	  output:crd:dir=config/crd/bases output:rbac:dir=config/rbac
	go run ./hack/crdlimits
	hack/sync-chart

.PHONY: verify-generated
verify-generated: generate manifests ## Fail if the committed generated files are outdated.
	@changed=$$(git status --porcelain -- $(GENERATED)) || exit 1; \
	if [ -n "$$changed" ]; then \
	  git --no-pager diff -- $(GENERATED); \
	  echo "$$changed"; \
	  echo "These generated files are not current: run 'make generate manifests' and commit them."; \
	  exit 1; \
	fi

##@ Images and clusters

.PHONY: docker-build
docker-build: ## Build both images: IMG and APIKEY_MANAGER_IMG.
	$(CONTAINER_TOOL) build $(DOCKER_ARGS) -t $(IMG) -f Dockerfile .
	$(CONTAINER_TOOL) build $(DOCKER_ARGS) -t $(APIKEY_MANAGER_IMG) -f Dockerfile.apikey-manager .

DOCKER_ARGS = $(DOCKER_FLAGS) $(if $(PLATFORM),--platform $(PLATFORM)) \
  $(if $(GO_IMAGE),--build-arg GO_IMAGE=$(GO_IMAGE)) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
  --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) --build-arg DATE=$(DATE)

.PHONY: docker-push
docker-push: ## Push both images.
	$(CONTAINER_TOOL) push $(IMG)
	$(CONTAINER_TOOL) push $(APIKEY_MANAGER_IMG)

.PHONY: build-installer
build-installer: dist/install.yaml ## Write the manifests of an installation to dist/install.yaml (WATCH_NAMESPACES=a,b selects namespaces).

# Before the CustomResourceDefinition is deleted: after that, garbage collection may miss their dependents.
# Keys and users first, while the operator can delete them.
DELETE_HEADSCALES = -$(KUBECTL) delete headscalepreauthkeys,headscaleusers --all --all-namespaces --timeout=1m; \
  $(KUBECTL) delete headscales --all --all-namespaces --cascade=foreground

.PHONY: install
install: $(KUSTOMIZE) ## Install the CustomResourceDefinition into the current cluster.
	$(KUSTOMIZE) build config/crd | $(KUBECTL) apply --server-side -f -

.PHONY: uninstall
uninstall: $(KUSTOMIZE) ## Remove the CustomResourceDefinition, and every Headscale with it.
	$(DELETE_HEADSCALES)
	$(KUSTOMIZE) build config/crd | $(KUBECTL) delete --ignore-not-found -f -

.PHONY: deploy
deploy: dist/install.yaml ## Install the operator into the current cluster, with IMG and APIKEY_MANAGER_IMG.
	$(KUBECTL) apply --server-side -f dist/install.yaml

.PHONY: undeploy
undeploy: dist/install.yaml ## Remove the operator, and every Headscale with it.
	$(DELETE_HEADSCALES)
	$(KUBECTL) delete --ignore-not-found -f dist/install.yaml

.PHONY: dist/install.yaml
dist/install.yaml: $(KUSTOMIZE)
	@mkdir -p dist
	IMG=$(IMG) APIKEY_MANAGER_IMG=$(APIKEY_MANAGER_IMG) WATCH_NAMESPACES=$(WATCH_NAMESPACES) \
	  KUSTOMIZE=$(KUSTOMIZE) hack/render-installer >$@.unfinished
	mv $@.unfinished $@

##@ Releases

# Archives of the images for this machine's processor, or for GOARCH's.
IMAGES_DIR = out/images
ACTIONLINT = bin/actionlint
GOVULNCHECK = bin/govulncheck

.PHONY: images
images: ## Build archives of both images in out/images, without Docker.
	@mkdir -p $(IMAGES_DIR)
	GOOS=linux $(GO_BUILD) -tags $(TAGS) -ldflags "$(LDFLAGS)" -o $(IMAGES_DIR)/manager ./cmd
	GOOS=linux $(GO_BUILD) -tags $(TAGS) -ldflags "$(LDFLAGS)" -o $(IMAGES_DIR)/apikey-manager ./cmd/apikey-manager
	cd hack/images && GOARCH= $(GO_BUILD) -o ../../bin/images .
	bin/images --output $(IMAGES_DIR) --license LICENSE --platform linux/$$(go env GOARCH) --created $(DATE) \
	  --label org.opencontainers.image.version=$(VERSION) --label org.opencontainers.image.revision=$(COMMIT) \
	  $(IMG)=$(IMAGES_DIR)/manager $(APIKEY_MANAGER_IMG)=$(IMAGES_DIR)/apikey-manager

.PHONY: test-images
test-images: ## Test the build of the images, and the versions that their programs print.
	cd hack/images && go test -count=1 ./...
	hack/test-images

# URL of the plugin's archives, with the tag as its last part.
PLUGIN_URL ?= https://github.com/infrado/headscale-operator/releases/download/$(VERSION)

.PHONY: plugin-archives
plugin-archives: ## Build archives of kubectl headscale for all platforms, and its krew manifest, in dist.
	GO_BUILD='$(GO_BUILD) -tags $(TAGS)' LDFLAGS='$(LDFLAGS)' hack/plugin-archives $(VERSION)
	hack/krew-manifest $(VERSION) $(PLUGIN_URL) >dist/krew-headscale.yaml

# The release of a bundle: a commit between two has none.
BUNDLE_VERSION ?= $(shell sed -n 's/^appVersion: //p' charts/headscale-operator/Chart.yaml)

.PHONY: bundle
bundle: $(KUSTOMIZE) ## Write an OLM bundle of BUNDLE_VERSION, with IMG and APIKEY_MANAGER_IMG, to dist/bundle, and validate it.
	@mkdir -p dist
	cd hack/bundle && GOOS= GOARCH= $(GO_BUILD) -o ../../bin/bundle .
	IMG=$(IMG) APIKEY_MANAGER_IMG=$(APIKEY_MANAGER_IMG) KUSTOMIZE=$(KUSTOMIZE) hack/render-installer >dist/bundle.yaml
	bin/bundle --version $(BUNDLE_VERSION) --created $(DATE) <dist/bundle.yaml

.PHONY: test-bundle
test-bundle: bundle ## Test the OLM bundle.
	cd hack/bundle && go test -count=1 ./...

# The suite builds its own images; E2E_LOAD_IMAGE is the command that loads an archive
# of one into the cluster.
.PHONY: test-e2e
test-e2e: bin/helm3 bin/helm4 $(KUSTOMIZE) ## Run the end-to-end suite on the cluster of KUBECONFIG (E2E_FLAGS=--ginkgo.focus=…).
	@test -n "$$KUBECONFIG" || { echo "test-e2e: set KUBECONFIG to the cluster to test on; it must be one to play with"; exit 1; }
	@$(SERVERS) --headscale v0.28.0,v0.29.3
	E2E=1 go test -count=1 -timeout 45m -v ./test/e2e -args --ginkgo.v --ginkgo.timeout=40m $(E2E_FLAGS)

.PHONY: test-chart
test-chart: bin/helm3 bin/helm4 $(KUSTOMIZE) ## Lint the chart, and compare it with the manifests in config/.
	@assets=$$($(SERVERS) --headscale none --print) || exit 1; \
	KUBEBUILDER_ASSETS="$$assets" go test -count=1 ./test/chart

.PHONY: test-alerts
test-alerts: $(PROMTOOL) bin/selectors ## Test the alerts on synthetic series, and the dashboard's queries on the programs' metrics.
	$(PROMTOOL) check rules --lint=all --lint-fatal config/prometheus/rules.yaml
	$(PROMTOOL) check config --syntax-only config/prometheus/prometheus.yaml # its files are in the cluster
	$(PROMTOOL) test rules test/monitoring/testdata/rules_test.yaml
	@assets=$$($(SERVERS) --headscale $(HEADSCALE_VERSIONS) --print) || exit 1; \
	KUBEBUILDER_ASSETS="$$assets" go test -count=1 ./test/monitoring

.PHONY: lint-workflows
lint-workflows: $(ACTIONLINT) ## Check the workflows in .github.
	$(ACTIONLINT)

.PHONY: vulnerabilities
vulnerabilities: $(GOVULNCHECK) ## Check the called code for known vulnerabilities (uses vuln.go.dev).
	$(GOVULNCHECK) ./...

##@ Housekeeping

.PHONY: clean
clean: ## Remove build results (not the cache of servers).
	rm -rf bin dist out

# A module below hack/tools pins each tool.
$(CONTROLLER_GEN): hack/tools/controller-gen/go.mod hack/tools/controller-gen/go.sum
	cd hack/tools/controller-gen && $(GO_BUILD) -o ../../../$@ sigs.k8s.io/controller-tools/cmd/controller-gen

$(GOLANGCI_LINT): hack/tools/golangci-lint/go.mod hack/tools/golangci-lint/go.sum
	@echo "Building golangci-lint; this happens once and takes some minutes."
	cd hack/tools/golangci-lint && $(GO_BUILD) -o ../../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(KUSTOMIZE): hack/tools/kustomize/go.mod hack/tools/kustomize/go.sum
	cd hack/tools/kustomize && $(GO_BUILD) -o ../../../$@ sigs.k8s.io/kustomize/kustomize/v5

bin/helm3: hack/tools/helm3/go.mod hack/tools/helm3/go.sum
	cd hack/tools/helm3 && $(GO_BUILD) -o ../../../$@ helm.sh/helm/v3/cmd/helm

bin/helm4: hack/tools/helm4/go.mod hack/tools/helm4/go.sum
	cd hack/tools/helm4 && $(GO_BUILD) -o ../../../$@ helm.sh/helm/v4/cmd/helm

# Only the service discovery of Prometheus that is used here.
$(PROMTOOL): hack/tools/promtool/go.mod hack/tools/promtool/go.sum
	@echo "Building promtool; this happens once and takes some minutes."
	cd hack/tools/promtool && $(GO_BUILD) -tags remove_all_sd,enable_kubernetes_sd -o ../../../$@ github.com/prometheus/prometheus/cmd/promtool

bin/selectors: hack/tools/promtool/selectors/main.go hack/tools/promtool/go.mod hack/tools/promtool/go.sum
	cd hack/tools/promtool && $(GO_BUILD) -o ../../../$@ ./selectors

$(ACTIONLINT): hack/tools/actionlint/go.mod hack/tools/actionlint/go.sum
	cd hack/tools/actionlint && $(GO_BUILD) -o ../../../$@ github.com/rhysd/actionlint/cmd/actionlint

$(GOVULNCHECK): hack/tools/govulncheck/go.mod hack/tools/govulncheck/go.sum
	cd hack/tools/govulncheck && $(GO_BUILD) -o ../../../$@ golang.org/x/vuln/cmd/govulncheck
