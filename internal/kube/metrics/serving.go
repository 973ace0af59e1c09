package metrics

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/log"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// Serving says how the metrics are served.
type Serving struct {
	// Address is host:port, or "0" for none.
	Address string
	// Secure is whether they are served over HTTPS, to clients whose token may get /metrics.
	// Otherwise it is plain HTTP, to everybody who reaches the address.
	Secure bool
	// CertPath is a directory with tls.crt and tls.key, which are read again when they change.
	// Without it, the certificate is self-signed and made at each start.
	CertPath string
}

// Certificate returns the watcher that reads the certificate again, which the manager has to
// run, or nil where the certificate is self-signed. A directory without a certificate is an
// error.
func (s Serving) Certificate() (*certwatcher.CertWatcher, error) {
	if !s.Secure || s.CertPath == "" {
		return nil, nil
	}
	watcher, err := certwatcher.New(filepath.Join(s.CertPath, corev1.TLSCertKey), filepath.Join(s.CertPath, corev1.TLSPrivateKeyKey))
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of the metrics: %w", err)
	}
	return watcher, nil
}

// Options are the settings of controller-runtime's metrics server; certificate is what
// Certificate returned, and now the clock.
func (s Serving) Options(certificate *certwatcher.CertWatcher, now func() time.Time) metricsserver.Options {
	options := metricsserver.Options{
		BindAddress: s.Address, SecureServing: s.Secure,
		HandlerOpts: []func(*promhttp.HandlerOpts){serveTheRest},
	}
	if !s.Secure {
		return options
	}
	options.FilterProvider = RequireAccess(now)
	options.TLSOpts = []func(*tls.Config){func(config *tls.Config) {
		// A scrape needs no HTTP/2, whose streams are one more way to flood a server.
		config.NextProtos = []string{"http/1.1"}
		if certificate != nil {
			config.GetCertificate = certificate.GetCertificate
		}
	}}
	return options
}

// serveTheRest serves what could be collected if something else could not. It logs the error, and
// counts it in promhttp_metric_handler_errors_total.
func serveTheRest(options *promhttp.HandlerOpts) {
	options.ErrorHandling = promhttp.ContinueOnError
	options.Registry = ctrlmetrics.Registry
	options.ErrorLog = slog.NewLogLogger(logr.ToSlogHandler(log.Log.WithName("metrics")), slog.LevelError)
}
