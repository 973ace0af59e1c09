// Package chart has the tests of the Helm chart: that it installs what config/default
// installs, that Helm 3 and 4 agree about it, and that an API server accepts all it
// renders. `make test-chart` builds the tools for them.
package chart
