package podrunner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// retryPrepare is the pause before a pod whose volumes could not be made is
// tried again.
const retryPrepare = 500 * time.Millisecond

// pod is one life of the StatefulSet's pod.
type pod struct {
	runner    *Runner
	namespace string
	name      string
	revision  string
	template  corev1.PodTemplateSpec // with the volumes of the claim templates
	dir       string                 // of volumes that end with the pod
	claimsDir string                 // of volumes that stay
	cancel    context.CancelFunc
	stopping  bool // guarded by the runner's mutex
	done      chan struct{}

	mutex      sync.Mutex
	containers []*container
}

// newPod describes a pod of the StatefulSet.
func (r *Runner) newPod(set *appsv1.StatefulSet, revision string) *pod {
	root := filepath.Join(r.options.Guard.Dir(), set.Namespace+"-"+set.Name)
	p := &pod{
		runner: r, namespace: set.Namespace, name: set.Name + "-0", revision: revision,
		template:  *set.Spec.Template.DeepCopy(),
		dir:       filepath.Join(root, fmt.Sprint(r.serial)),
		claimsDir: filepath.Join(root, "claims"),
		done:      make(chan struct{}),
	}
	for i := range set.Spec.VolumeClaimTemplates {
		name := set.Spec.VolumeClaimTemplates[i].Name
		p.template.Spec.Volumes = append(p.template.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name + "-" + p.name},
		}})
	}
	return p
}

// start runs the pod until it is cancelled. Afterwards nothing is left of it but
// its persistent volumes. While something is missing, it tries again, as a kubelet does.
func (p *pod) start(ctx context.Context) {
	ctx, p.cancel = context.WithCancel(ctx)
	go func() {
		defer close(p.done)
		defer func() { _ = os.RemoveAll(p.dir) }()
		if err := wait.PollUntilContextCancel(ctx, retryPrepare, true, func(ctx context.Context) (bool, error) {
			err := p.prepare(ctx)
			if err != nil && ctx.Err() == nil {
				p.runner.report(err)
			}
			return err == nil, nil
		}); err != nil {
			return
		}
		var running sync.WaitGroup
		for _, c := range p.containers {
			running.Go(func() { wait.UntilWithContext(ctx, c.runOnce, restartPause) })
		}
		running.Wait()
	}()
}

// prepare makes the volumes and resolves what the containers run.
func (p *pod) prepare(ctx context.Context) error {
	if len(p.template.Spec.InitContainers) > 0 {
		return errors.New("init containers are not emulated")
	}
	var containers []*container
	for i := range p.template.Spec.Containers {
		c, err := p.prepareContainer(ctx, &p.template.Spec.Containers[i])
		if err != nil {
			return err
		}
		containers = append(containers, c)
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.containers = containers
	return nil
}

// prepareContainer makes the volumes of one container and resolves its command.
func (p *pod) prepareContainer(ctx context.Context, template *corev1.Container) (*container, error) {
	if len(template.EnvFrom) > 0 || template.WorkingDir != "" {
		return nil, fmt.Errorf("container %s: envFrom and workingDir are not emulated", template.Name)
	}
	program, known := p.runner.options.Programs[template.Image]
	if !known {
		return nil, fmt.Errorf("there is no program for the image %q, only for %q",
			template.Image, slices.Sorted(maps.Keys(p.runner.options.Programs)))
	}
	dirs, err := p.mount(ctx, template)
	if err != nil {
		return nil, err
	}
	variables, err := p.variables(ctx, template)
	if err != nil {
		return nil, err
	}
	c := &container{
		template: template, pod: p, mounts: dirs, program: program,
		home: filepath.Join(p.dir, template.Name, "home"),
		log:  p.runner.logOf(template.Name),
	}
	if err := errors.Join(os.MkdirAll(c.home, 0o700), c.resolveArgs()); err != nil {
		return nil, err
	}
	err = c.resolveEnv(variables)
	return c, err
}

// container finds a container by its name; nil before the pod is prepared.
func (p *pod) container(name string) *container {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, c := range p.containers {
		if c.template.Name == name {
			return c
		}
	}
	return nil
}

// ready reports whether the pod would get traffic.
func (p *pod) ready() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return len(p.containers) > 0 && !slices.ContainsFunc(p.containers, func(c *container) bool { return !c.ready() })
}
