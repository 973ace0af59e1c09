package podrunner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/process"
)

// tick is how often the StatefulSet, the containers and the probes are looked at.
const tick = 100 * time.Millisecond

// Options say what is run and how.
type Options struct {
	// Client and Config are an administrator's.
	Client client.Client
	Config *rest.Config
	// Guard owns the directory of the volumes and ends the containers when nobody
	// else does.
	Guard *process.Guard
	// StatefulSet names the one whose pod is run. It need not exist yet.
	StatefulSet client.ObjectKey
	// Programs gives the program of each image, by the image's whole reference or
	// by its name without tag and digest.
	Programs map[string]string
	// Output receives what a container prints. It may be nil.
	Output func(container string) io.Writer
	// Log receives a line for each thing of note. It may be nil.
	Log func(line string)
}

// Runner runs the pod of one StatefulSet. Its methods may be called at any time.
type Runner struct {
	options Options
	ports   portMap

	mutex    sync.Mutex
	pod      *pod // nil while there is none
	serial   int
	current  string // revision of the last pod that was ready
	logs     map[string]*process.Log
	problems string // the last that was logged

	shown *corev1.Pod // the Pod object; used by Run alone
}

// New returns a Runner. Run makes it work.
func New(options Options) *Runner {
	if options.Log == nil {
		options.Log = func(string) {}
	}
	return &Runner{options: options, logs: map[string]*process.Log{}}
}

// Run follows the StatefulSet until the context ends, and then stops the pod.
func (r *Runner) Run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	defer r.hide(context.WithoutCancel(ctx))
	defer r.stop()
	for {
		if err := r.step(ctx); err != nil && ctx.Err() == nil {
			r.report(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
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
	revision, err := revisionOf(set)
	if err != nil {
		return err
	}
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

// stop ends the pod and waits for it.
func (r *Runner) stop() {
	r.mutex.Lock()
	pod := r.pod
	r.mutex.Unlock()
	if pod != nil {
		pod.cancel()
		<-pod.done
	}
}

// report logs a problem unless it is the same as the last one.
func (r *Runner) report(err error) {
	r.mutex.Lock()
	repeated := r.problems == err.Error()
	r.problems = err.Error()
	r.mutex.Unlock()
	if !repeated {
		r.options.Log(fmt.Sprintf("pod of %s: %v", r.options.StatefulSet, err))
	}
}

// logOf is what a container's programs have printed, over all restarts.
func (r *Runner) logOf(container string) *process.Log {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	log, known := r.logs[container]
	if !known {
		var output io.Writer
		if r.options.Output != nil {
			output = r.options.Output(container)
		}
		log = process.NewLog(output)
		r.logs[container] = log
	}
	return log
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
	c := r.container(container)
	if c == nil {
		return ""
	}
	for _, candidate := range c.template.Ports {
		if candidate.Name == port {
			return r.ports.lookup(int(candidate.ContainerPort))
		}
	}
	return ""
}

// HostPath is where a path of a container is on this machine. A path outside all
// volumes stays as it is; without such a container it is "".
func (r *Runner) HostPath(container, path string) string {
	c := r.container(container)
	if c == nil {
		return ""
	}
	return c.mounts.rewrite(path)
}

// container is one of the current pod's, or nil.
func (r *Runner) container(name string) *container {
	r.mutex.Lock()
	pod := r.pod
	r.mutex.Unlock()
	if pod == nil {
		return nil
	}
	return pod.container(name)
}
