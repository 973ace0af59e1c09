package podrunner

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
)

const (
	// The pause before a container that ended is started again doubles from the
	// first to the second, which is much quicker than a kubelet's 10 s to 5 min.
	firstPause = 250 * time.Millisecond
	lastPause  = 5 * time.Second
	// longLife is how long a container must have run for the pause to begin anew.
	longLife = time.Minute
)

// defaultHeadscaleConfig is where Headscale looks when nobody says where.
const defaultHeadscaleConfig = "/etc/headscale/config.yaml"

// container is one container of a pod.
type container struct {
	template *corev1.Container
	pod      *pod
	mounts   mounts
	program  string
	args     []string
	env      []string
	home     string
	log      *process.Log

	mutex   sync.Mutex
	process *process.Process // the last that was started
	passing bool             // the readiness probe passes
	began   time.Time        // when it was started
	starts  int32
	ended   *corev1.ContainerStateTerminated // the last that ended by itself
}

// resolveArgs makes the command line. The image's entrypoint, or what command
// says instead of it, is the program of the image.
func (c *container) resolveArgs(variables map[string]string) []string {
	args := c.template.Args
	if len(c.template.Command) > 0 {
		args = slices.Concat(c.template.Command[1:], args)
	}
	args = expandAll(args, variables)
	for i := range args {
		args[i] = c.mounts.rewrite(args[i])
	}
	return args
}

// movePorts has the container listen on free addresses of this machine.
func (c *container) movePorts() error {
	for i := range c.args {
		moved, err := moveBindAddress(c.args[i], &c.pod.runner.ports)
		if err != nil {
			return err
		}
		c.args[i] = moved
	}
	return nil
}

// resolveEnv makes the whole environment: what an image would bring, what the
// template says, and what a process needs that is no container.
func (c *container) resolveEnv(variables map[string]string, tokens []token) ([]string, error) {
	all := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": c.home, "HOSTNAME": c.pod.name,
	}
	if tmp, mounted := c.mounts["/tmp"]; mounted {
		all["TMPDIR"] = tmp
	}
	for name, value := range variables {
		all[name] = c.mounts.rewrite(value)
	}
	if len(tokens) > 0 {
		all["KUBECONFIG"] = filepath.Join(c.home, "kubeconfig")
		if err := env.WriteKubeconfig(all["KUBECONFIG"], c.pod.config, c.pod.namespace, tokens[0].path); err != nil {
			return nil, err
		}
	}
	config := c.configPath()
	moved, err := moveListeners(config, &c.pod.runner.ports)
	if err != nil {
		return nil, err
	}
	if len(moved) > 0 {
		all["HEADSCALE_CONFIG"] = config
		maps.Copy(all, moved)
	}
	list := make([]string, 0, len(all))
	for name, value := range all {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list, nil
}

// configPath is the config file that the command line names, or Headscale's usual
// one.
func (c *container) configPath() string {
	for i, arg := range c.args {
		if path, found := strings.CutPrefix(arg, "--config="); found {
			return path
		}
		if (arg == "--config" || arg == "-c") && i+1 < len(c.args) {
			return c.args[i+1]
		}
	}
	return c.mounts.rewrite(defaultHeadscaleConfig)
}

// run keeps the container running until the context ends.
func (c *container) run(ctx context.Context) {
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, lastPause) {
		started := time.Now()
		c.runOnce(ctx)
		if time.Since(started) > longLife {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// runOnce runs the program until it ends, or ends it with the context.
func (c *container) runOnce(ctx context.Context) {
	p, err := process.Start(process.Command{
		Name: c.pod.name + "/" + c.template.Name, Path: c.program, Args: c.args, Env: c.env, Dir: c.workingDir(),
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
	var wait sync.WaitGroup
	wait.Go(func() { c.probe(probing) })
	select {
	case <-p.Exited():
		c.pod.runner.options.Log(p.Name() + " ended: " + p.Describe())
		c.noteEnd(p)
	case <-ctx.Done():
		if err := p.Stop(c.pod.grace()); err != nil {
			c.pod.runner.report(err)
		}
	}
	stopProbing()
	wait.Wait()
}

// workingDir is the container's, where it is in a volume.
func (c *container) workingDir() string {
	if dir := c.mounts.rewrite(c.template.WorkingDir); dir != c.template.WorkingDir {
		if err := os.MkdirAll(dir, 0o700); err == nil {
			return dir
		}
	}
	return c.home
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

// ready tells whether the container runs and its readiness probe passes.
func (c *container) ready() bool {
	running := c.running() != nil
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return running && c.passing
}
