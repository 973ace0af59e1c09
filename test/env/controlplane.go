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
	// Servers says where etcd, kube-apiserver and kubectl are.
	Servers serverbuild.Servers
	// Guard owns the directory and ends the servers when nobody else does.
	Guard *process.Guard
	// CRDs are files, or directories of files, that are installed.
	CRDs []string
	// Output receives what etcd and kube-apiserver print. It may be nil.
	Output io.Writer
	// Configure, if set, changes the API server's flags.
	Configure func(*envtest.APIServer)
}

// ControlPlane is a running etcd and kube-apiserver. There is no controller, no
// scheduler and no kubelet: nothing but what is asked of the API happens.
type ControlPlane struct {
	config      *rest.Config
	kubeconfig  string
	kubectl     string
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
	c := &ControlPlane{
		config:      config,
		kubeconfig:  filepath.Join(options.Guard.Dir(), "kubeconfig"),
		kubectl:     options.Servers.Kubectl(),
		dir:         options.Guard.Dir(),
		environment: environment,
	}
	if err := os.WriteFile(c.kubeconfig, environment.KubeConfig, 0o600); err != nil {
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
func (c *ControlPlane) Kubeconfig() string { return c.kubeconfig }

// Stop ends the servers.
func (c *ControlPlane) Stop() error {
	if err := c.environment.Stop(); err != nil {
		return fmt.Errorf("stopping the control plane: %w", err)
	}
	return nil
}

// Kubectl runs kubectl as an administrator and returns what it printed. The
// error of a failed command contains its complaints.
func (c *ControlPlane) Kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "KUBECACHEDIR="+filepath.Join(c.dir, "kubectl"))
	var output, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &complaints
	if err := cmd.Run(); err != nil {
		return output.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return output.String(), nil
}
