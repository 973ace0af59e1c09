package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/test/audit"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/keyuse"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

const (
	// headscaleVersion is the Headscale that is measured with.
	headscaleVersion = serverbuild.DefaultHeadscale
	// identityName is the name of the Headscale that a manager belongs to, and so of its
	// ServiceAccount.
	identityName = "headscale"
	// managerGrace is how long a manager may take to end, and storeLimit a key to be in the Secret.
	managerGrace = 5 * time.Second
	storeLimit   = time.Minute
)

// failure is how check ends a measurement.
type failure struct{ error }

// check ends the measurement where there is an error: see attempt.
func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// must is a value that there is without an error.
func must[T any](value T, err error) T {
	check(err)
	return value
}

// attempt does something in which check and must end what cannot go on, and returns why.
func attempt(do func()) (err error) {
	defer func() {
		switch caught := recover().(type) {
		case nil:
		case failure:
			err = caught.error
		default:
			panic(caught)
		}
	}()
	do()
	return nil
}

// lab is an API server that keeps an audit log, with nothing in it, for one measurement.
type lab struct {
	*env.World
	settings *settings
	log      *audit.Log
	users    map[string]counts
}

// inLab starts a lab, and ends it after something was done there.
func inLab(s *settings, do func(*lab)) {
	world := must(env.NewWorld("hs-bench-", nil, headscaleVersion))
	defer func() { check(world.Close()) }()
	world.Binaries = env.Binaries{Operator: filepath.Join(s.images, "manager"), Manager: filepath.Join(s.images, "apikey-manager")}
	log := must(audit.New(world.Guard.Dir()))
	check(world.StartPlane(func(server *envtest.APIServer) {
		log.Configure(server)
		// The default has 254 addresses, which two Services of each Headscale use up.
		server.Configure().Set("service-cluster-ip-range", "10.0.0.0/16")
	}))
	do(&lab{World: world, settings: s, log: log, users: map[string]counts{}})
}

// count returns a user's requests so far.
func (l *lab) count(user string) counts {
	check(l.log.Read(func(event *audit.Event) {
		total := l.users[event.User.Username]
		total.add(event)
		l.users[event.User.Username] = total
	}))
	return l.users[user]
}

// resting is what a process needs while nothing happens.
type resting struct {
	rest     time.Duration
	requests counts
	// busy is how long it kept processors busy.
	busy time.Duration
	// proportional, anonymous and resident are its memory afterwards, in MiB: anonymous is the
	// part of proportional that is no page of the binary.
	proportional, anonymous, resident float64
}

// watchRest watches a process, which is a user of the API server, while nothing happens.
func (l *lab) watchRest(ctx context.Context, rest time.Duration, pid int, user string) resting {
	before, busyBefore := l.count(user), processorTime(pid)
	pause(ctx, rest)
	return resting{
		rest: rest, busy: processorTime(pid) - busyBefore, requests: l.count(user).minus(before),
		proportional: memoryOf(pid, "Pss"), anonymous: memoryOf(pid, "Pss_Anon"), resident: memoryOf(pid, "Rss"),
	}
}

// percent is the part of a processor that it kept busy.
func (r resting) percent() float64 { return 100 * r.busy.Seconds() / r.rest.Seconds() }

// counts are numbers of requests.
type counts struct {
	// requests are all of them, and watches those that stay open.
	requests, watches int
	// created are writes by which an object came about that is no event; status and events are
	// writes of those, and other all other writes, those that failed among them.
	created, status, events, other int
}

// add counts a request. A watch counts when it begins, or is refused, and not when it ends.
func (c *counts) add(event *audit.Event) {
	if event.Verb == "watch" {
		if event.Stage == "ResponseComplete" && event.ResponseStatus.Code < http.StatusBadRequest {
			return
		}
		c.watches++
	} else if event.Stage == "ResponseStarted" {
		return
	}
	c.requests++
	switch {
	case !event.Writes():
	case event.ObjectRef.Resource == "events":
		c.events++
	case event.ObjectRef.Subresource == "status":
		c.status++
	case event.Created():
		c.created++
	default:
		c.other++
	}
}

// writes are the requests that change something.
func (c counts) writes() int { return c.created + c.status + c.events + c.other }

// minus are the requests since an earlier count.
func (c counts) minus(earlier counts) counts {
	return counts{
		requests: c.requests - earlier.requests, watches: c.watches - earlier.watches,
		created: c.created - earlier.created, status: c.status - earlier.status,
		events: c.events - earlier.events, other: c.other - earlier.other,
	}
}

// site is a namespace in which an API Key Manager has the rights that the operator gives it,
// and the socket of a Headscale.
type site struct {
	*lab
	namespace, kubeconfig, socket string
	// metrics is where the manager's metrics are.
	metrics string
	manager *process.Process
}

// newSite makes a site, in which no manager runs yet.
func (l *lab) newSite(ctx context.Context, socket string) *site {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}
	check(l.Admin.Create(ctx, namespace))
	account := client.ObjectKey{Namespace: namespace.Name, Name: identityName}
	check(env.GrantManager(ctx, l.Admin, account))
	dir := must(os.MkdirTemp(l.Guard.Dir(), "site-"))
	return &site{
		lab: l, namespace: namespace.Name, socket: socket, metrics: must(env.FreeAddress()),
		kubeconfig: must(l.Plane.ServiceAccountKubeconfig(ctx, l.Admin, account, dir)),
	}
}

// atSite starts Headscale, and ends it and the manager after something was done at a site
// beside it.
func (l *lab) atSite(ctx context.Context, do func(*env.Headscale, *site)) {
	h := l.startHeadscale(ctx)
	defer h.Kill()
	s := l.newSite(ctx, h.SocketPath())
	defer s.stop()
	do(h, s)
}

// startHeadscale starts the real Headscale.
func (l *lab) startHeadscale(ctx context.Context) *env.Headscale {
	return must(env.StartHeadscale(ctx, env.HeadscaleOptions{Binary: l.Servers.Headscale[headscaleVersion], Guard: l.Guard}))
}

// user is who the manager is for the API server.
func (s *site) user() string {
	return fmt.Sprintf("system:serviceaccount:%s:%s", s.namespace, identityName)
}

// start starts the manager.
func (s *site) start(settings ...string) {
	s.manager = must(process.Start(process.Command{
		Name: "apikey-manager", Path: s.Binaries.Manager, Guard: s.Guard,
		Args: append([]string{
			"--socket-path=" + s.socket, "--secret-name=" + v1beta1.DefaultSecretName, "--metrics-bind-address=" + s.metrics,
		}, settings...),
		Env: []string{"KUBECONFIG=" + s.kubeconfig, "POD_NAMESPACE=" + s.namespace},
	}))
}

// stop ends the manager, if it runs.
func (s *site) stop() {
	if s.manager != nil && s.manager.Running() {
		check(s.manager.Stop(managerGrace))
	}
}

// whenStored returns when a key is in the Secret for the first time, as soon as it is.
func (s *site) whenStored(ctx context.Context) func() time.Time {
	stored := must(keyuse.WhenStored(ctx, s.Admin, s.namespace))
	return func() time.Time {
		select {
		case at := <-stored:
			return at
		case <-ctx.Done():
			check(ctx.Err())
		case <-s.manager.Exited():
		case <-time.After(storeLimit):
		}
		check(fmt.Errorf("no key came; the manager said:\n%s", s.manager.Log().Tail(5)))
		return time.Time{}
	}
}

// clear ends the manager and deletes the Secret.
func (s *site) clear(ctx context.Context) {
	s.stop()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: v1beta1.DefaultSecretName}}
	check(client.IgnoreNotFound(s.Admin.Delete(ctx, secret)))
}

// readKey is the key in the Secret, as its users read it.
func (s *site) readKey(ctx context.Context) (string, error) {
	secret := &corev1.Secret{}
	err := s.Admin.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: v1beta1.DefaultSecretName}, secret)
	return apikey.ReadRecord(secret).Text.Reveal(), client.IgnoreNotFound(err)
}

// sightings is how many changes may wait to be looked at. There are fewer in the longest part.
const sightings = 1 << 14

// sighting is an object as it was at some time.
type sighting[T any] struct {
	object T
	at     time.Time
}

// follow watches the objects of a namespace, which costs the API server less than asking. It
// notes when something is seen, whoever looks at it later.
func follow[T any](ctx context.Context, admin client.WithWatch, list client.ObjectList, namespace string) (<-chan sighting[T], func()) {
	watcher := must(admin.Watch(ctx, list, client.InNamespace(namespace)))
	seen := make(chan sighting[T], sightings)
	go func() {
		defer close(seen)
		for event := range watcher.ResultChan() {
			if object, ok := event.Object.(T); ok {
				seen <- sighting[T]{object, time.Now()}
			}
		}
	}()
	return seen, watcher.Stop
}
