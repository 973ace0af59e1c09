package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"infrado.cloud/headscale-operator/test/monitoring/stage"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

const (
	// duration is how long is recorded.
	duration = 20 * time.Minute
	// scrapeInterval is that of the configuration below.
	scrapeInterval = 5 * time.Second
	// followTargets is how often Prometheus is told what there is to scrape.
	followTargets = time.Second
)

// configuration is Prometheus'. The jobs are those of config/prometheus/prometheus.yaml,
// with targets from a file, because there are no pods to discover.
const configuration = `
global: {scrape_interval: 5s, scrape_timeout: 5s, evaluation_interval: 5s}
rule_files: [%q]
scrape_configs:
- job_name: headscale-operator
  honor_labels: true
  file_sd_configs: [{files: [operator.json], refresh_interval: 5s}]
- job_name: headscales
  file_sd_configs: [{files: [headscales.json], refresh_interval: 5s}]
`

// record runs the stage, the play on it, and Prometheus.
func record(ctx context.Context, s settings) error {
	if err := os.MkdirAll(s.data, 0o755); err != nil {
		return err
	}
	servers, err := serverbuild.Find(serverbuild.Options{Root: s.root, Headscale: []string{serverbuild.DefaultHeadscale}})
	if err != nil {
		return err
	}
	on, err := stage.Start(ctx, s.root, servers, io.Discard)
	if err != nil {
		return err
	}
	err = recordStage(ctx, s, on)
	return errors.Join(err, on.Close())
}

// recordStage records until the play is over.
func recordStage(ctx context.Context, s settings, on *stage.Stage) error {
	p, err := begin(ctx, on)
	if err != nil {
		return err
	}
	if err := writeConfiguration(s, on); err != nil {
		return err
	}
	prometheus, _, err := startPrometheus(ctx, s, on.Guard)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	go follow(limited, s, on)
	if err := p.perform(limited); err != nil {
		return err
	}
	<-limited.Done()
	// So that what is in memory is written.
	if err := prometheus.Stop(time.Minute); err != nil {
		return err
	}
	return ctx.Err()
}

// writeConfiguration writes Prometheus' configuration and its first targets.
func writeConfiguration(s settings, on *stage.Stage) error {
	rules := filepath.Join(s.root, "config", "prometheus", "rules.yaml")
	if err := os.WriteFile(filepath.Join(s.data, "prometheus.yaml"), fmt.Appendf(nil, configuration, rules), 0o600); err != nil {
		return err
	}
	return errors.Join(
		writeTargets(filepath.Join(s.data, "operator.json"), []stage.Target{on.Operator()}),
		writeTargets(filepath.Join(s.data, "headscales.json"), nil),
	)
}

// follow tells Prometheus of the pods that come and go.
func follow(ctx context.Context, s settings, on *stage.Stage) {
	ticker := time.NewTicker(followTargets)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			targets := append(on.Managers(), on.Headscales()...)
			if err := writeTargets(filepath.Join(s.data, "headscales.json"), targets); err != nil {
				fmt.Fprintln(os.Stderr, "picture:", err)
			}
		}
	}
}

// writeTargets writes a file from which Prometheus takes its targets, in one go.
func writeTargets(path string, targets []stage.Target) error {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	groups := []group{}
	for _, target := range targets {
		groups = append(groups, group{[]string{target.Address}, target.Labels})
	}
	text, err := json.Marshal(groups)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".unfinished", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".unfinished", path)
}

// startPrometheus starts Prometheus on the recorded data, and returns its address when it
// answers.
func startPrometheus(ctx context.Context, s settings, guard *process.Guard) (*process.Process, string, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	p, err := process.Start(process.Command{
		Name: "prometheus", Path: filepath.Join(s.root, "bin", "prometheus"), Dir: s.data, Guard: guard,
		Args: []string{
			"--config.file=prometheus.yaml", "--storage.tsdb.path=" + filepath.Join(s.data, "tsdb"),
			"--web.listen-address=" + address, "--log.level=warn",
		},
	})
	if err != nil {
		return nil, "", fmt.Errorf("%w; make bin/prometheus builds it", err)
	}
	if err := waitFor(ctx, p, "http://"+address+"/-/ready"); err != nil {
		p.Kill()
		return nil, "", fmt.Errorf("%w; Prometheus said:\n%s", err, p.Log().Tail(10))
	}
	return p, address, nil
}
