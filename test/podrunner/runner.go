package podrunner

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
)

const (
	// tick is how often the StatefulSet, the containers and the probes are looked at.
	tick = 100 * time.Millisecond
	// hideTimeout ends a deletion of the Pod object that hangs.
	hideTimeout = 5 * time.Second
)

// Options say what is run and how.
type Options struct {
	Client      client.Client     // an administrator's
	Config      *rest.Config      // an administrator's
	Guard       *process.Guard    // owns the volumes' directory, and ends the containers when nobody else does
	StatefulSet client.ObjectKey  // the one whose pod is run; need not exist yet
	Programs    map[string]string // the program of each image, by the image's whole reference
	Output      io.Writer         // receives what the containers print, and a line for each thing of note
}

// Runner runs the pod of one StatefulSet. Its methods may be called at any time.
type Runner struct {
	options Options
	ports   portMap

	mutex    sync.Mutex
	pod      *pod // nil while there is none
	serial   int
	logs     map[string]*process.Log
	problems string // the last that was logged

	readyRevision string          // of the last pod that was ready; used by run alone
	jobs          map[string]*job // by the ends of their names; used by run alone
}

// StartInWorld runs the pod of a StatefulSet in a World; see Start.
func StartInWorld(w *env.World, statefulSet client.ObjectKey, output io.Writer) (r *Runner, stop func()) {
	return Start(Options{
		Client: w.Admin, Config: w.Plane.Config(), Guard: w.Guard, StatefulSet: statefulSet, Programs: w.Programs(), Output: output,
	})
}

// Start runs a pod until stop is called, which waits for its end.
func Start(options Options) (r *Runner, stop func()) {
	r = &Runner{options: options, ports: portMap{ip: env.OwnIP()}, logs: map[string]*process.Log{}, jobs: map[string]*job{}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.run(ctx) })
	return r, func() {
		cancel()
		running.Wait()
	}
}

// run follows the StatefulSet until the context ends, and then stops the pod.
func (r *Runner) run(ctx context.Context) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := errors.Join(r.followJobs(ctx), r.step(ctx)); err != nil && ctx.Err() == nil {
			r.report(err)
		}
	}, tick)
	if pod := r.current(); pod != nil {
		pod.cancel()
		<-pod.done
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hideTimeout)
	defer cancel()
	err := r.hide(ctx, r.podKey())
	for _, suffix := range jobs {
		err = errors.Join(err, r.endJob(ctx, suffix))
	}
	if err != nil {
		r.report(err)
	}
}

// step brings the pod closer to the StatefulSet and reports its status.
func (r *Runner) step(ctx context.Context) error {
	set := &appsv1.StatefulSet{}
	err := r.options.Client.Get(ctx, r.options.StatefulSet, set)
	if apierrors.IsNotFound(err) {
		r.follow(ctx, nil, "")
		return r.show(ctx, nil)
	}
	if err != nil {
		return err
	}
	template, err := json.Marshal(set.Spec.Template)
	if err != nil {
		return err
	}
	revision := fmt.Sprintf("%s-%.5x", set.Name, sha256.Sum256(template))
	r.follow(ctx, set, revision)
	return errors.Join(r.show(ctx, set), r.writeStatus(ctx, set, revision))
}

// follow starts a pod where one is wanted and none is there, and begins to stop
// one that is not wanted as it is.
func (r *Runner) follow(ctx context.Context, set *appsv1.StatefulSet, revision string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	wanted := set != nil && set.DeletionTimestamp == nil && ptr.Deref(set.Spec.Replicas, 1) > 0
	if r.pod != nil && (r.pod.stopping || !wanted || r.pod.revision != revision) {
		r.pod.stopping = true
		r.pod.cancel()
		select {
		case <-r.pod.done:
			r.pod = nil
		default:
			return
		}
	}
	if r.pod == nil && wanted {
		r.serial++
		r.pod = r.newPod(set, revision)
		r.pod.start(ctx)
	}
}

// current is the pod that there is, or nil.
func (r *Runner) current() *pod {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.pod
}

// report logs a problem unless it is the same as the last one.
func (r *Runner) report(err error) {
	r.mutex.Lock()
	repeated := r.problems == err.Error()
	r.problems = err.Error()
	r.mutex.Unlock()
	if !repeated {
		_, _ = fmt.Fprintf(r.options.Output, "pod of %s: %v\n", r.options.StatefulSet, err)
	}
}

// logOf is what a container's programs have printed, over all restarts.
func (r *Runner) logOf(container string) *process.Log {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.logs[container] == nil {
		r.logs[container] = process.NewLog(r.options.Output)
	}
	return r.logs[container]
}

// Log is what a container has printed, in all pods and over all restarts.
func (r *Runner) Log(container string) string {
	return r.logOf(container).String()
}

// Process is the one that runs a container now, or nil.
func (r *Runner) Process(container string) *process.Process {
	if c := r.container(container); c != nil {
		return c.running()
	}
	return nil
}

// Address is where a port of a container, by its name, can be reached, or "" when
// there is no such container or port.
func (r *Runner) Address(container, port string) string {
	if c := r.container(container); c != nil {
		return c.address(intstr.FromString(port))
	}
	return ""
}

// HostPath is where a path of a container is on this machine. A path outside all
// volumes stays as it is; without such a container it is "".
func (r *Runner) HostPath(container, path string) string {
	if c := r.container(container); c != nil {
		return c.mounts.rewrite(path)
	}
	return ""
}

// container is one of the current pod's, or nil.
func (r *Runner) container(name string) *container {
	if pod := r.current(); pod != nil {
		return pod.container(name)
	}
	return nil
}
