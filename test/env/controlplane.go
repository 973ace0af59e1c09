// Package env starts the real servers that integration tests and the demo talk
// to: a control plane (etcd and kube-apiserver) and Headscale. All of them listen
// on the loopback interface, keep what they write in a guarded directory, and end
// with the program that started them.
package env

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// controlPlaneTimeout is how long etcd and kube-apiserver may each take to start
// or stop, which on a busy machine with two processors is many times the usual.
const controlPlaneTimeout = 2 * time.Minute

// ControlPlaneOptions say how a control plane is started.
type ControlPlaneOptions struct {
	Servers   serverbuild.Servers      // where etcd, kube-apiserver and kubectl are
	Guard     *process.Guard           // owns the directory and ends the servers when nobody else does
	CRDs      []string                 // files, or directories of files, that are installed
	Output    io.Writer                // receives what etcd and kube-apiserver print; may be nil
	Configure func(*envtest.APIServer) // if set, changes the API server's flags
}

// ControlPlane is a running etcd and kube-apiserver. There is no controller, no
// scheduler and no kubelet: nothing but what is asked of the API happens.
type ControlPlane struct {
	config      *rest.Config
	dir         string
	environment *envtest.Environment
}

// StartControlPlane starts etcd and kube-apiserver and waits until they answer.
func StartControlPlane(options ControlPlaneOptions) (*ControlPlane, error) {
	environment, err := newEnvironment(options)
	if err != nil {
		return nil, err
	}
	config, err := environment.Start()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the control plane: %w", err), environment.Stop())
	}
	c := &ControlPlane{config: config, dir: options.Guard.Dir(), environment: environment}
	if err := os.WriteFile(c.Kubeconfig(), environment.KubeConfig, 0o600); err != nil {
		return nil, errors.Join(err, environment.Stop())
	}
	return c, nil
}

// newEnvironment describes the control plane to envtest.
func newEnvironment(options ControlPlaneOptions) (*envtest.Environment, error) {
	paths := map[string]string{}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		path, err := options.Guard.Wrap(filepath.Join(options.Servers.Assets, name))
		if err != nil {
			return nil, err
		}
		if err := os.Mkdir(filepath.Join(options.Guard.Dir(), name), 0o700); err != nil {
			return nil, err
		}
		paths[name] = path
	}
	environment := &envtest.Environment{
		CRDDirectoryPaths:        options.CRDs,
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: controlPlaneTimeout,
		ControlPlaneStopTimeout:  controlPlaneTimeout,
	}
	environment.ControlPlane.KubectlPath = options.Servers.Kubectl()
	environment.ControlPlane.Etcd = &envtest.Etcd{
		Path: paths["etcd"], DataDir: filepath.Join(options.Guard.Dir(), "etcd"),
		Out: options.Output, Err: options.Output,
	}
	server := environment.ControlPlane.GetAPIServer()
	server.Path, server.CertDir = paths["kube-apiserver"], filepath.Join(options.Guard.Dir(), "kube-apiserver")
	server.Out, server.Err = options.Output, options.Output
	if options.Configure != nil {
		options.Configure(server)
	}
	return environment, nil
}

// Config is an administrator's.
func (c *ControlPlane) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig is the path of an administrator's kubeconfig.
func (c *ControlPlane) Kubeconfig() string { return filepath.Join(c.dir, "kubeconfig") }

// Stop ends the servers.
func (c *ControlPlane) Stop() error { return c.environment.Stop() }

// Kubectl runs kubectl as an administrator and returns what it printed. The
// error of a failed command contains its complaints.
func (c *ControlPlane) Kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.environment.ControlPlane.KubectlPath, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "KUBECACHEDIR="+filepath.Join(c.dir, "kubectl"))
	var complaints strings.Builder
	cmd.Stderr = &complaints
	output, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return string(output), err
}

// ToldByAPIServer reports whether an event is one of the API server's own: now and then it reports
// a Service's address that it has just given away and not yet written down.
func ToldByAPIServer(event *eventsv1.Event) bool {
	return strings.HasSuffix(event.ReportingController, "allocator-repair-controller")
}
