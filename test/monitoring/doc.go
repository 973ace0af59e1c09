// Package monitoring has the tests of what Prometheus and Grafana are told and shown: that
// every alert is complete and tried, and that alerts, dashboard and documentation name only
// series that the programs have. What the alerts make of series is tried by
// `make test-alerts`.
package monitoring
