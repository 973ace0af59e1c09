package main

import (
	"bytes"
	"context"
	"log/slog"
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/kube/metrics"
)

// environment is a process environment in a map.
func environment(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func TestUnusableFlags(t *testing.T) {
	for name, test := range map[string]struct {
		args     []string
		sentence string
	}{
		"no manager image":         {nil, "no image of the API Key Manager: set the flag --manager-image or the environment variable MANAGER_IMAGE"},
		"an unknown flag":          {[]string{"--bogus"}, "flag provided but not defined: -bogus; --help lists the flags"},
		"an argument":              {[]string{"--manager-image=a", "b"}, `unexpected argument "b"`},
		"an unknown format":        {[]string{"--manager-image=a", "--log-format=xml"}, `--log-format is "xml": it must be text or json`},
		"an unknown level":         {[]string{"--manager-image=a", "--log-level=loud"}, "log-level"},
		"a bad namespace":          {[]string{"--manager-image=a", "--watch-namespaces=ok,Not_OK"}, `--watch-namespaces has "Not_OK", which is not the name of a namespace`},
		"a certificate of nothing": {[]string{"--manager-image=a", "--metrics-secure=false", "--metrics-cert-path=/certs"}, "--metrics-cert-path is set, and --metrics-secure=false serves the metrics without a certificate"},
		"a value that is no bool":  {[]string{"--leader-elect=maybe"}, "invalid boolean value"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var stdout, stderr bytes.Buffer
			g.Expect(run(context.Background(), test.args, environment(nil), &stdout, &stderr)).To(Equal(exitUsage))
			g.Expect(stderr.String()).To(And(HavePrefix("headscale-operator: "), ContainSubstring(test.sentence)))
			g.Expect(bytes.Count(stderr.Bytes(), []byte("\n"))).To(Equal(1), "one sentence, and not the whole usage")
			g.Expect(stdout.String()).To(BeEmpty())
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	g := NewWithT(t)
	var stdout, stderr bytes.Buffer
	g.Expect(run(context.Background(), []string{"--version"}, environment(nil), &stdout, &stderr)).To(BeZero())
	g.Expect(stdout.String()).To(Equal("headscale-operator dev (commit unknown, unknown)\n"))
	g.Expect(run(context.Background(), []string{"--help"}, environment(nil), &stdout, &stderr)).To(BeZero())
	g.Expect(stderr.String()).To(ContainSubstring("-manager-image"))
}

func TestNoCluster(t *testing.T) {
	g := NewWithT(t)
	t.Setenv("KUBECONFIG", "/does/not/exist")
	var stdout, stderr bytes.Buffer
	g.Expect(run(context.Background(), []string{"--manager-image=a", "--log-format=json"}, environment(nil), &stdout, &stderr)).To(Equal(exitUsage))
	g.Expect(stderr.String()).To(Equal("headscale-operator: no Kubernetes API server is configured: this is not a pod, and there is no kubeconfig; set KUBECONFIG to one or create ~/.kube/config\n"))
}

func TestSettings(t *testing.T) {
	g := NewWithT(t)
	s, err := parseFlags(nil, environment(map[string]string{"MANAGER_IMAGE": "from-env", "WATCH_NAMESPACES": "a, b,,"}), &bytes.Buffer{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.ManagerImage).To(Equal("from-env"))
	g.Expect(s.Namespaces).To(Equal([]string{"a", "b"}))
	g.Expect(s.LeaderElect).To(BeFalse())
	g.Expect(s.logLevel).To(Equal(slog.LevelInfo))
	g.Expect(s.Metrics).To(Equal(metrics.Serving{Address: ":8443", Secure: true}))

	s, err = parseFlags([]string{"--manager-image=from-flag", "--watch-namespaces=", "--leader-elect", "--log-level=debug"},
		environment(map[string]string{"MANAGER_IMAGE": "from-env", "WATCH_NAMESPACES": "a"}), &bytes.Buffer{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.ManagerImage).To(Equal("from-flag"))
	g.Expect(s.Namespaces).To(BeEmpty())
	g.Expect(s.LeaderElect).To(BeTrue())
	g.Expect(s.logLevel).To(Equal(slog.LevelDebug))
}
