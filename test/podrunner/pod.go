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
	"k8s.io/utils/ptr"
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
	inits      []*container      // those before them that were started
	noImage    *corev1.Container // the one whose image stands for no program
}

// runsOnce reports whether containers that end are left so.
func (p *pod) runsOnce() bool { return p.template.Spec.RestartPolicy == corev1.RestartPolicyNever }

// dir is where everything of the StatefulSet is, and claimsDir where its volumes are that stay.
func (r *Runner) dir() string {
	return filepath.Join(r.options.Guard.Dir(), r.options.StatefulSet.Namespace+"-"+r.options.StatefulSet.Name)
}

func (r *Runner) claimsDir() string { return filepath.Join(r.dir(), "claims") }

// newPod describes a pod of the StatefulSet.
func (r *Runner) newPod(set *appsv1.StatefulSet, revision string) *pod {
	p := &pod{
		runner: r, namespace: set.Namespace, name: set.Name + "-0", revision: revision,
		template:  *set.Spec.Template.DeepCopy(),
		dir:       filepath.Join(r.dir(), fmt.Sprint(r.serial)),
		claimsDir: r.claimsDir(),
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
		end, stop := context.WithCancel(context.WithoutCancel(ctx))
		var running, sidecars sync.WaitGroup
		defer sidecars.Wait()
		defer stop()
		for _, c := range p.initialize(ctx, end, &sidecars) {
			running.Go(func() {
				if p.runsOnce() {
					c.runOnce(ctx)
					return
				}
				wait.UntilWithContext(ctx, c.runOnce, restartPause)
			})
		}
		running.Wait()
	}()
}

// initialize runs the init containers in turn, each until it succeeds or, if it is restarted always, until end. It
// returns the containers that are next: none where an init container has failed for good.
func (p *pod) initialize(ctx, end context.Context, sidecars *sync.WaitGroup) []*container {
	for i := range p.template.Spec.InitContainers {
		template := &p.template.Spec.InitContainers[i]
		if wait.PollUntilContextCancel(ctx, restartPause, true, func(ctx context.Context) (bool, error) {
			c, err := p.prepareContainer(ctx, template)
			if err != nil {
				p.runner.report(err)
				return false, nil
			}
			c.once = template.RestartPolicy == nil
			p.mutex.Lock()
			p.inits = append(p.inits[:i:i], c)
			p.mutex.Unlock()
			if !c.once {
				sidecars.Go(func() { wait.UntilWithContext(end, c.runOnce, restartPause) })
				return true, nil
			}
			c.runOnce(ctx)
			return c.status().State.Terminated != nil, nil
		}) != nil || ptr.Deref(p.inits[i].status().State.Terminated, corev1.ContainerStateTerminated{}).ExitCode != 0 {
			return nil
		}
	}
	return p.containers
}

// prepare makes the volumes and resolves what the containers run.
func (p *pod) prepare(ctx context.Context) error {
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
	if template.WorkingDir != "" {
		return nil, fmt.Errorf("container %s: workingDir is not emulated", template.Name)
	}
	program, known := p.runner.options.Programs[template.Image]
	if !known {
		p.mutex.Lock()
		p.noImage = template
		p.mutex.Unlock()
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
	if err := errors.Join(os.MkdirAll(c.home, 0o700), c.resolveArgs(variables)); err != nil {
		return nil, err
	}
	err = c.resolveEnv(variables)
	return c, err
}

// container finds a container by its name; nil before the pod is prepared.
func (p *pod) container(name string) *container {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, c := range slices.Concat(p.inits, p.containers) {
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
	return len(p.containers) > 0 && !slices.ContainsFunc(slices.Concat(p.inits, p.containers), func(c *container) bool { return !c.once && !c.ready() })
}
