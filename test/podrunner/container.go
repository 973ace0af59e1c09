package podrunner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
)

// restartPause is the pause before a container that ended is started again, which
// is much quicker than a kubelet's 10 s to 5 min.
const restartPause = time.Second

// container is one container of a pod.
type container struct {
	template *corev1.Container
	pod      *pod
	mounts   mounts
	program  string
	args     []string
	env      []string
	home     string
	once     bool // it is not started again once it has succeeded
	log      *process.Log

	mutex   sync.Mutex
	process *process.Process // the last that was started
	passing bool             // the readiness probe passes
	began   time.Time        // when it was started
	starts  int32
	ended   *corev1.ContainerStateTerminated // the last that ended by itself
}

// resolveArgs makes the command line. The image's entrypoint, or what command
// says instead of it, is the program of the image. What the container listens on
// is moved to free addresses of this machine.
func (c *container) resolveArgs(variables map[string]string) (err error) {
	c.args = slices.Concat(c.template.Command[min(1, len(c.template.Command)):], c.template.Args)
	for i, arg := range c.args {
		for name, value := range variables {
			arg = strings.ReplaceAll(arg, "$("+name+")", value)
		}
		arg = strings.ReplaceAll(arg, corev1.TerminationMessagePathDefault, c.lastWords())
		if c.args[i], err = moveBindAddress(c.mounts.rewrite(arg), &c.pod.runner.ports); err != nil {
			return err
		}
	}
	return nil
}

// lastWords is the path of the file that a container may write its termination message to.
func (c *container) lastWords() string { return filepath.Join(c.home, "termination-log") }

// resolveEnv makes the whole environment: what an image would bring, what the
// template says, and what a process needs that is no container.
func (c *container) resolveEnv(variables map[string]string) error {
	all := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": c.home, "HOSTNAME": c.pod.name,
	}
	if tmp, mounted := c.mounts["/tmp"]; mounted {
		all["TMPDIR"] = tmp
	}
	for name, value := range variables {
		all[name] = c.mounts.rewrite(value)
	}
	if token := c.mounts.rewrite(tokenPath); token != tokenPath {
		all["KUBECONFIG"] = filepath.Join(c.home, "kubeconfig")
		if err := env.WriteKubeconfig(all["KUBECONFIG"], c.pod.runner.options.Config, c.pod.namespace, token); err != nil {
			return err
		}
	}
	for _, arg := range c.args {
		if config, found := strings.CutPrefix(arg, "--config="); found {
			moved, err := moveListeners(config, &c.pod.runner.ports)
			if err != nil {
				return err
			}
			all["HEADSCALE_CONFIG"] = config
			maps.Copy(all, moved)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c.env = append(c.env, name+"="+all[name])
	}
	return nil
}

// runOnce runs the program until it ends, or ends it with the context.
func (c *container) runOnce(ctx context.Context) {
	p, err := process.Start(process.Command{
		Name: c.pod.name + "/" + c.template.Name, Path: c.program, Args: c.args, Env: c.env, Dir: c.home,
		Output: c.log, Guard: c.pod.runner.options.Guard,
	})
	if err != nil {
		c.pod.runner.report(err)
		return
	}
	c.mutex.Lock()
	c.process, c.passing = p, c.template.ReadinessProbe == nil
	c.began, c.starts = time.Now(), c.starts+1
	c.mutex.Unlock()
	probing, stopProbing := context.WithCancel(ctx)
	var probes sync.WaitGroup
	if c.template.ReadinessProbe != nil {
		probes.Go(func() { c.probe(probing, c.template.ReadinessProbe) })
	}
	select {
	case <-p.Exited():
		_, _ = fmt.Fprintf(c.pod.runner.options.Output, "%s ended: %s\n", p.Name(), p.Describe())
		c.noteEnd(p)
	case <-ctx.Done():
		grace := ptr.Deref(c.pod.template.Spec.TerminationGracePeriodSeconds, 0) // The API server sets it.
		if err := p.Stop(time.Duration(grace) * time.Second); err != nil {
			c.pod.runner.report(err)
		}
	}
	stopProbing()
	probes.Wait()
}

// running is the process if it runs, or nil.
func (c *container) running() *process.Process {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.process == nil || !c.process.Running() {
		return nil
	}
	return c.process
}

// ready reports whether the container runs and its readiness probe passes.
func (c *container) ready() bool {
	running := c.running() != nil
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return running && c.passing
}

// probe asks the container's readiness probe until the context ends. It asks much
// more often than the template says, so that nobody waits for nothing.
func (c *container) probe(ctx context.Context, probe *corev1.Probe) {
	failures := int32(0)
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		passed := c.ask(ctx, probe)
		failures++
		if passed {
			failures = 0
		}
		c.mutex.Lock()
		defer c.mutex.Unlock()
		c.passing = passed || c.passing && failures < max(probe.FailureThreshold, 1)
	}, tick)
}

// ask sends a probe once, and expects a status from 200 to 399.
func (c *container) ask(ctx context.Context, probe *corev1.Probe) bool {
	get := probe.HTTPGet
	if get == nil || len(get.HTTPHeaders) > 0 || get.Host != "" {
		c.pod.runner.report(errors.New("a probe of this kind is not emulated"))
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(probe.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	url := strings.ToLower(string(get.Scheme)) + "://" + c.address(get.Port) + get.Path
	status, _, err := env.Get(ctx, url, "")
	return err == nil && status >= 200 && status < 400
}

// address is where a port of the container, by its name or number, can be
// reached, or "" when there is no such port.
func (c *container) address(port intstr.IntOrString) string {
	number := port.IntValue()
	for _, candidate := range c.template.Ports {
		if candidate.Name == port.StrVal && port.Type == intstr.String {
			number = int(candidate.ContainerPort)
		}
	}
	if number == 0 {
		return ""
	}
	return c.pod.runner.ports.lookup(number)
}
