package podrunner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// retryPrepare is the pause before a pod whose volumes could not be made is
	// tried again.
	retryPrepare = 500 * time.Millisecond
	// defaultGrace is Kubernetes' default of terminationGracePeriodSeconds.
	defaultGrace = 30 * time.Second
)

// pod is one life of the StatefulSet's pod.
type pod struct {
	runner    *Runner
	client    client.Client
	config    *rest.Config
	namespace string
	name      string
	revision  string
	template  corev1.PodTemplateSpec
	claims    []corev1.PersistentVolumeClaim
	dir       string // of volumes that end with the pod
	claimsDir string // of volumes that stay
	cancel    context.CancelFunc
	stopping  bool // guarded by the runner's mutex
	done      chan struct{}

	mutex      sync.Mutex
	containers []*container
}

// newPod describes a pod of the StatefulSet.
func (r *Runner) newPod(set *appsv1.StatefulSet, revision string) *pod {
	root := filepath.Join(r.options.Guard.Dir(), set.Namespace+"-"+set.Name)
	return &pod{
		runner: r, client: r.options.Client, config: r.options.Config,
		namespace: set.Namespace, name: set.Name + "-0", revision: revision,
		template: *set.Spec.Template.DeepCopy(), claims: slices.Clone(set.Spec.VolumeClaimTemplates),
		dir:       filepath.Join(root, fmt.Sprint(r.serial)),
		claimsDir: filepath.Join(root, "claims"),
		done:      make(chan struct{}),
	}
}

// start runs the pod until it is cancelled. Afterwards nothing is left of it but
// its persistent volumes.
func (p *pod) start(ctx context.Context) {
	ctx, p.cancel = context.WithCancel(ctx)
	go func() {
		defer close(p.done)
		defer func() { _ = os.RemoveAll(p.dir) }()
		tokens, err := p.prepareUntilDone(ctx)
		if err != nil {
			return
		}
		var wait sync.WaitGroup
		for _, t := range tokens {
			wait.Go(func() { p.keepToken(ctx, t) })
		}
		for _, c := range p.containers {
			wait.Go(func() { c.run(ctx) })
		}
		wait.Wait()
	}()
}

// prepareUntilDone tries again for as long as something is missing, as a kubelet
// does.
func (p *pod) prepareUntilDone(ctx context.Context) ([]token, error) {
	for {
		tokens, err := p.prepare(ctx)
		if err == nil || ctx.Err() != nil {
			return tokens, errors.Join(err, ctx.Err())
		}
		p.runner.report(err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryPrepare):
		}
	}
}

// prepare makes the volumes and resolves what the containers run.
func (p *pod) prepare(ctx context.Context) ([]token, error) {
	if len(p.template.Spec.InitContainers) > 0 {
		return nil, errors.New("init containers are not emulated")
	}
	var tokens []token
	var containers []*container
	for i := range p.template.Spec.Containers {
		c, made, err := p.prepareContainer(ctx, &p.template.Spec.Containers[i])
		if err != nil {
			return nil, err
		}
		containers, tokens = append(containers, c), append(tokens, made...)
	}
	p.mutex.Lock()
	p.containers = containers
	p.mutex.Unlock()
	return tokens, nil
}

// prepareContainer makes the volumes of one container and resolves its command.
func (p *pod) prepareContainer(ctx context.Context, template *corev1.Container) (*container, []token, error) {
	program, err := p.runner.program(template.Image)
	if err != nil {
		return nil, nil, err
	}
	dirs, tokens, err := p.mount(ctx, template)
	if err != nil {
		return nil, nil, err
	}
	variables, err := p.variables(ctx, template)
	if err != nil {
		return nil, nil, err
	}
	c := &container{
		template: template, pod: p, mounts: dirs, program: program,
		home: filepath.Join(p.dir, template.Name, "home"),
		log:  p.runner.logOf(template.Name),
	}
	if err := os.MkdirAll(c.home, 0o700); err != nil {
		return nil, nil, err
	}
	c.args = c.resolveArgs(variables)
	if err := c.movePorts(); err != nil {
		return nil, nil, err
	}
	if c.env, err = c.resolveEnv(variables, tokens); err != nil {
		return nil, nil, err
	}
	return c, tokens, nil
}

// program finds the program of an image.
func (r *Runner) program(image string) (string, error) {
	name, _, _ := strings.Cut(image, "@")
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") {
		name = name[:colon]
	}
	for _, candidate := range []string{image, name} {
		if program, known := r.options.Programs[candidate]; known {
			return program, nil
		}
	}
	return "", fmt.Errorf("there is no program for the image %q, only for %q", image, slices.Sorted(maps.Keys(r.options.Programs)))
}

// keepToken renews a token when four fifths of its life are over, as a kubelet does.
func (p *pod) keepToken(ctx context.Context, t token) {
	ticker := time.NewTicker(t.lifetime * 4 / 5)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := p.renew(ctx, t); err != nil && ctx.Err() == nil {
				p.runner.report(err)
			}
		}
	}
}

// grace is how long the containers may take to end.
func (p *pod) grace() time.Duration {
	seconds := ptr.Deref(p.template.Spec.TerminationGracePeriodSeconds, int64(defaultGrace/time.Second))
	return time.Duration(seconds) * time.Second
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

// ready tells whether the pod would get traffic.
func (p *pod) ready() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, c := range p.containers {
		if !c.ready() {
			return false
		}
	}
	return len(p.containers) > 0
}
