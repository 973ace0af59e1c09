// Package chart has the tests of the Helm chart: that it installs the same objects as
// config/default, that Helm 3 and 4 render the same, and that an API server accepts the
// result. `make test-chart` builds the tools for them.
package chart
