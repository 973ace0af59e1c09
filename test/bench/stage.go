package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/audit"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// headscaleVersion is the Headscale that is measured with.
const headscaleVersion = serverbuild.DefaultHeadscale

// lab is what all subjects share.
type lab struct {
	settings *settings
	// root is the repository's.
	root    string
	servers serverbuild.Servers
	// operator and manager are the programs as they are released.
	operator, manager string
}

// newLab finds the servers and the programs, which were built before.
func newLab(s *settings) (*lab, error) {
	root, err := serverbuild.FindRoot()
	if err != nil {
		return nil, err
	}
	servers, err := serverbuild.Find(serverbuild.Options{Root: root})
	if err != nil {
		return nil, err
	}
	l := &lab{settings: s, root: root, servers: servers}
	for name, path := range map[string]*string{"manager": &l.operator, "apikey-manager": &l.manager} {
		*path = s.imagePath(root, name)
		if _, err := os.Stat(*path); err != nil {
			return nil, fmt.Errorf("%w: run `make images` first (make bench does so by itself)", err)
		}
	}
	return l, nil
}

// stage is an API server that keeps an audit log, with nothing in it.
type stage struct {
	guard *process.Guard
	plane *env.ControlPlane
	audit *requestCounts
	admin client.WithWatch
}

// onStage starts a stage, and ends it after something was done there.
func (l *lab) onStage(ctx context.Context, do func(context.Context, *stage) error) (err error) {
	guard, err := process.NewGuard("hs-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, guard.Close()) }()
	log, err := audit.New(guard.Dir())
	if err != nil {
		return err
	}
	defer log.Close()
	plane, err := env.StartControlPlane(env.ControlPlaneOptions{Servers: l.servers, Guard: guard, Configure: func(server *envtest.APIServer) {
		log.Configure(server)
		// The default has 254 addresses, which two Services of each Headscale use up.
		server.Configure().Set("service-cluster-ip-range", "10.0.0.0/16")
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	admin, err := newAdmin(plane)
	if err != nil {
		return err
	}
	return do(ctx, &stage{guard: guard, plane: plane, audit: newRequestCounts(log), admin: admin})
}

// newAdmin makes an administrator's client, which nothing slows down.
func newAdmin(plane *env.ControlPlane) (client.WithWatch, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	config := plane.Config()
	config.QPS = -1
	return client.NewWithWatch(config, client.Options{Scheme: scheme})
}
