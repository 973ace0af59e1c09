// Package kinds pins the release of the Prometheus operator whose kinds the chart's
// objects are checked against: their definitions come with that module, in
// example/prometheus-operator-crd.
package kinds

import (
	// What keeps the module in go.mod: a package of it that needs little else.
	_ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
)
