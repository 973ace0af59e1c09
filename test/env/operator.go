package env

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

const (
	// ManagerImage is the image of the API Key Manager that the operator is told, under
	// the name that `make docker-build` gives it.
	ManagerImage = "headscale-operator/apikey-manager:latest"
	// operatorNamespace and operatorAccount are what config/default makes of the
	// operator's namespace and ServiceAccount.
	operatorNamespace = "headscale-operator-system"
	operatorAccount   = "headscale-operator-controller-manager"
)

// Binaries are the programs of this repository.
type Binaries struct {
	Operator string // cmd/main.go
	Manager  string // cmd/apikey-manager/main.go, the API Key Manager
}

// BuildBinaries builds the programs into dir.
func BuildBinaries(ctx context.Context, root, dir string, log io.Writer) (Binaries, error) {
	binaries := Binaries{Operator: filepath.Join(dir, "manager"), Manager: filepath.Join(dir, "apikey-manager")}
	return binaries, errors.Join(
		serverbuild.BuildProgram(ctx, root, "./cmd", binaries.Operator, log),
		serverbuild.BuildProgram(ctx, root, "./cmd/apikey-manager", binaries.Manager, log),
	)
}

// InstallOperator applies config/default: all of an installation, of which only
// the Deployment has no effect here, because nothing runs it.
func (c *ControlPlane) InstallOperator(ctx context.Context, root string) error {
	if _, err := c.Kubectl(ctx, "apply", "--server-side", "-k", filepath.Join(root, "config", "default")); err != nil {
		return err
	}
	return c.AwaitResource(ctx)
}

// resourceTimeout is how long the API server may take to serve a resource it was just told of.
const resourceTimeout = time.Minute

// AwaitResource waits until the API server serves Headscales, and says so to those who ask what
// it serves. kubectl wait --for=condition=Established can do neither: it fails where it meets a
// CustomResourceDefinition so new that it has no conditions, and discovery comes later.
func (c *ControlPlane) AwaitResource(ctx context.Context) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, resourceTimeout, true, func(ctx context.Context) (bool, error) {
		_, last = c.Kubectl(ctx, "get", "headscales", "--all-namespaces")
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("the API server does not serve Headscales: %w: %w", err, last)
	}
	return nil
}

// Operator is a running operator, with the path of its kubeconfig.
type Operator struct {
	Kubeconfig string
	Process    *process.Process
}

// RunOperator runs the program of an operator outside the cluster, as the ServiceAccount
// of its installation and so with no other rights, and waits until it is ready.
func (w *World) RunOperator(ctx context.Context, program string, args ...string) (*Operator, error) {
	dir, err := os.MkdirTemp(w.Guard.Dir(), "operator-")
	if err != nil {
		return nil, err
	}
	account := client.ObjectKey{Namespace: operatorNamespace, Name: operatorAccount}
	kubeconfig, err := w.Plane.ServiceAccountKubeconfig(ctx, w.Admin, account, dir)
	if err != nil {
		return nil, err
	}
	probes, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	p, err := process.Start(process.Command{
		Name: "operator", Path: program, Dir: dir,
		Args: append([]string{
			"--manager-image=" + ManagerImage, "--metrics-bind-address=0", "--health-probe-bind-address=" + probes,
			"--leader-elect", "--leader-election-namespace=" + operatorNamespace,
		}, args...),
		Env:    append(os.Environ(), "KUBECONFIG="+kubeconfig, "MANAGER_IMAGE=", "WATCH_NAMESPACES="),
		Output: w.output, Guard: w.Guard,
	})
	if err != nil {
		return nil, err
	}
	if err := awaitUp(ctx, p, "http://"+probes+"/readyz"); err != nil {
		return nil, err
	}
	return &Operator{kubeconfig, p}, nil
}

// Stop ends the operator in order.
func (o *Operator) Stop() error { return o.Process.Stop(endTimeout) }

// ManagerCommand is how an API Key Manager runs beside a Headscale, with the rights of a kubeconfig.
// Without further flags it has the default Secret, and its metrics and its admin endpoint are on some port.
func ManagerCommand(program, socket, kubeconfig, namespace string, flags ...string) process.Command {
	return process.Command{
		Name: "apikey-manager", Path: program,
		Args: append([]string{"--socket-path=" + socket, "--metrics-bind-address=127.0.0.1:0", "--admin-bind-address=127.0.0.1:0"}, flags...),
		Env:  []string{"KUBECONFIG=" + kubeconfig, "POD_NAMESPACE=" + namespace},
	}
}
