package podrunner

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/process"
)

// jobs are the ends of the names of the Jobs, which begin with that of the StatefulSet.
var jobs = []string{"-preflight", "-verify"}

// job is a Job whose pod is run once.
type job struct {
	uid types.UID
	pod *pod
}

// followJobs runs the pods of the Jobs while there are some.
func (r *Runner) followJobs(ctx context.Context) (err error) {
	for _, suffix := range jobs {
		err = errors.Join(err, r.followJob(ctx, suffix))
	}
	return err
}

// followJob runs the pod of one Job.
func (r *Runner) followJob(ctx context.Context, suffix string) error {
	live := &batchv1.Job{}
	key := client.ObjectKey{Namespace: r.options.StatefulSet.Namespace, Name: r.options.StatefulSet.Name + suffix}
	err := r.options.Client.Get(ctx, key, live)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	known := r.jobs[suffix]
	if gone := err != nil || live.DeletionTimestamp != nil; gone || known != nil && known.uid != live.UID {
		return r.endJob(ctx, suffix)
	}
	if known == nil {
		known = r.newJob(live)
		r.jobs[suffix] = known
		known.pod.start(ctx)
	}
	return known.pod.show(ctx, metav1.NewControllerRef(live, batchv1.SchemeGroupVersion.WithKind("Job")))
}

// newJob describes the pod of a Job. It has ports and logs of its own.
func (r *Runner) newJob(live *batchv1.Job) *job {
	own := &Runner{options: r.options, logs: map[string]*process.Log{}}
	return &job{uid: live.UID, pod: &pod{
		runner: own, namespace: live.Namespace, name: fmt.Sprintf("%s-%.5s", live.Name, live.UID), template: *live.Spec.Template.DeepCopy(),
		revision: string(live.UID),
		dir:      filepath.Join(r.options.Guard.Dir(), fmt.Sprintf("%.8s", live.UID)),
		// The claims are those of the StatefulSet.
		claimsDir: r.claimsDir(),
		done:      make(chan struct{}),
	}}
}

// endJob stops the pod of a Job, if there is one, and deletes its object.
func (r *Runner) endJob(ctx context.Context, suffix string) error {
	known := r.jobs[suffix]
	if known == nil {
		return nil
	}
	pod := known.pod
	pod.cancel()
	<-pod.done
	delete(r.jobs, suffix)
	return r.hide(ctx, client.ObjectKey{Namespace: pod.namespace, Name: pod.name})
}
