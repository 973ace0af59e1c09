package preauthkeys_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/reliability/apiproxy"
)

// operators are programs of the operator, one after the other or several at a time, that watch
// some namespaces.
type operators struct {
	namespaces []string
	tailnets   []*tailnet
	kubeconfig string
	flags      []string
	// api is what they take for the API server.
	api *apiproxy.Proxy
	// printed is all that they printed, and the API Key Managers.
	printed *process.Log
	// metrics is where the newest one serves its metrics.
	metrics string
	running []*process.Process
}

// operatorAccount is the ServiceAccount of an installation.
var operatorAccount = client.ObjectKey{Namespace: "headscale-operator-system", Name: "headscale-operator-controller-manager"}

// newOperators prepares operators with the rights of the installation. They end with the spec.
func newOperators(ctx context.Context, flags ...string) *operators {
	GinkgoHelper()
	o := &operators{printed: process.NewLog(GinkgoWriter), flags: flags}
	var err error
	o.api, err = apiproxy.Start(world.Plane.Config())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(o.api.Leave)
	dir, err := os.MkdirTemp(guard.Dir(), "o-")
	Expect(err).NotTo(HaveOccurred())
	token, err := env.Token(ctx, admin, operatorAccount)
	Expect(err).NotTo(HaveOccurred())
	o.kubeconfig = filepath.Join(dir, "kubeconfig")
	Expect(os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600)).To(Succeed())
	o.turnTo(o.api.Config())
	DeferCleanup(o.kill)
	return o
}

// turnTo has operators that are started from now on take a server for the API server.
func (o *operators) turnTo(config *rest.Config) {
	GinkgoHelper()
	Expect(env.WriteKubeconfig(o.kubeconfig, config, operatorAccount.Namespace, filepath.Join(filepath.Dir(o.kubeconfig), "token"))).To(Succeed())
}

// start starts one more.
func (o *operators) start() *process.Process {
	GinkgoHelper()
	var err error
	o.metrics, err = env.FreeAddress()
	Expect(err).NotTo(HaveOccurred())
	p, err := process.Start(process.Command{
		Name: "operator", Path: world.Binaries.Operator,
		Args: append([]string{
			"--manager-image=" + env.ManagerImage, "--metrics-bind-address=" + o.metrics, "--metrics-secure=false", "--health-probe-bind-address=0",
			"--watch-namespaces=" + strings.Join(o.namespaces, ","), "--leader-election-namespace=" + operatorAccount.Namespace,
		}, o.flags...),
		Env:    append(os.Environ(), "KUBECONFIG="+o.kubeconfig, "MANAGER_IMAGE=", "WATCH_NAMESPACES="),
		Output: o.printed, Guard: guard,
	})
	Expect(err).NotTo(HaveOccurred())
	o.running = append(o.running, p)
	return p
}

// kill ends all of them as a power failure would.
func (o *operators) kill() {
	for _, p := range o.running {
		p.Kill()
	}
	o.running = nil
}

// stopGrace is how long an operator may take to end, as the kubelet has it.
const stopGrace = 10 * time.Second

// replace ends the operator as a Deployment does, and starts the next one before that has ended.
func (o *operators) replace() {
	GinkgoHelper()
	before := o.running
	o.running = nil
	o.start()
	for _, p := range before {
		Expect(p.Stop(stopGrace)).To(Succeed())
	}
}
