package podrunner

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probe asks the container's readiness probe until the context ends. It asks much
// more often than the template says, so that nobody waits for nothing.
func (c *container) probe(ctx context.Context) {
	probe := c.template.ReadinessProbe
	if probe == nil {
		return
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	failures := int32(0)
	for {
		err := c.ask(ctx, probe)
		if err == nil {
			failures = 0
		} else {
			failures++
		}
		c.mutex.Lock()
		c.passing = err == nil || c.passing && failures < max(probe.FailureThreshold, 1)
		c.mutex.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// ask carries out a probe once.
func (c *container) ask(ctx context.Context, probe *corev1.Probe) error {
	timeout := time.Duration(max(probe.TimeoutSeconds, 1)) * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case probe.HTTPGet != nil:
		return c.askHTTP(ctx, probe.HTTPGet)
	case probe.TCPSocket != nil:
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", c.address(probe.TCPSocket.Port))
		if err != nil {
			return err
		}
		return connection.Close()
	default:
		return errors.New("a probe of this kind is not emulated")
	}
}

// askHTTP expects an answer from 200 to 399. A certificate is not checked, as a
// kubelet does not either.
func (c *container) askHTTP(ctx context.Context, get *corev1.HTTPGetAction) error {
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	url := scheme + "://" + c.address(get.Port) + "/" + strings.TrimPrefix(get.Path, "/")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	for _, header := range get.HTTPHeaders {
		request.Header.Set(header.Name, header.Value)
	}
	prober := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	response, err := prober.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("%s answered with %s", url, response.Status)
	}
	return nil
}

// address is where a port of the container, by its name or number, can be reached.
func (c *container) address(port intstr.IntOrString) string {
	number := port.IntValue()
	for _, candidate := range c.template.Ports {
		if port.Type == intstr.String && candidate.Name == port.StrVal {
			number = int(candidate.ContainerPort)
		}
	}
	return c.pod.runner.ports.lookup(number)
}
