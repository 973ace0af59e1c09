package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	watchtools "k8s.io/client-go/tools/watch"
)

// kill sends SIGKILL to the process of a container. The pod must be privileged and see
// the host's processes: from within its own PID namespace, a container's first process
// cannot be killed.
func kill(_ context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("kill needs the UID of a pod and the name of a program")
	}
	pid, err := findProcess(args[0], args[1])
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// findProcess finds the process of a container by the UID of its pod and the name of its
// program.
func findProcess(uid, program string) (int, error) {
	groups, _ := filepath.Glob("/proc/[0-9]*/cgroup") // The pattern is a good one.
	for _, group := range groups {
		dir := filepath.Dir(group)
		content, err := os.ReadFile(group)
		// The systemd driver writes the UID with underscores.
		if err != nil || !strings.Contains(strings.ReplaceAll(string(content), "_", "-"), uid) {
			continue
		}
		command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		if first, _, _ := strings.Cut(string(command), "\x00"); filepath.Base(first) == program {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, fmt.Errorf("pod %s has no process %s", uid, program)
}

// gonePoll is how often a killed process is looked for.
const gonePoll = time.Millisecond

// awaitGone waits until a process has ended, so that it does nothing more.
func awaitGone(ctx context.Context, pid int) error {
	return wait.PollUntilContextCancel(ctx, gonePoll, true, func(context.Context) (bool, error) {
		// Where nobody has waited for it, it is still in the table, as a zombie: state Z.
		status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(status), "\nState:\tZ"), nil
	})
}

// interruptTimeout bounds the wait for the mark.
const interruptTimeout = time.Minute

// interruption is a process that is killed in the middle of its work.
type interruption struct {
	pod, program string
	secret       string // namespace/name
	request      string // annotation=value
	mark         string // annotation
	offset       time.Duration
}

// interrupt asks for a rotation, waits until the Secret bears a new mark, kills the process
// that has made it, and prints the names of the annotations in which marks were left.
func interrupt(ctx context.Context, args []string) error {
	var i interruption
	flags := flag.NewFlagSet("interrupt", flag.ExitOnError)
	flags.StringVar(&i.pod, "pod", "", "the UID of the pod")
	flags.StringVar(&i.program, "program", "", "the name of the program")
	flags.StringVar(&i.secret, "secret", "", "namespace/name of the Secret")
	flags.StringVar(&i.request, "request", "", "annotation=value that asks for a rotation")
	flags.StringVar(&i.mark, "mark", "", "the annotation to wait for")
	flags.DurationVar(&i.offset, "offset", 0, "how long after the mark was seen the process is killed")
	_ = flags.Parse(args) // ExitOnError
	ctx, cancel := context.WithTimeout(ctx, interruptTimeout)
	defer cancel()
	annotations, err := i.carryOut(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(annotations)
}

// carryOut returns the names of the annotations.
func (i *interruption) carryOut(ctx context.Context) ([]string, error) {
	pid, err := findProcess(i.pod, i.program)
	if err != nil {
		return nil, err
	}
	secrets, name, err := secretIn("/", i.secret)
	if err != nil {
		return nil, err
	}
	before, err := secrets.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if err := i.awaitMark(ctx, secrets, before); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(i.offset):
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return nil, err
	}
	if err := awaitGone(ctx, pid); err != nil {
		return nil, err
	}
	after, err := secrets.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(after.Annotations, func(name, value string) bool { return !hasNew(value, before.Annotations[name]) })
	return slices.Sorted(maps.Keys(after.Annotations)), nil
}

// awaitMark asks for a rotation, and waits until the Secret has a mark that it did not have
// before.
func (i *interruption) awaitMark(ctx context.Context, secrets corev1client.SecretInterface, before *corev1.Secret) error {
	changes, err := secrets.Watch(ctx, metav1.SingleObject(before.ObjectMeta))
	if err != nil {
		return err
	}
	annotation, value, _ := strings.Cut(i.request, "=")
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, annotation, value)
	if _, err := secrets.Patch(ctx, before.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return err
	}
	if _, err := watchtools.UntilWithoutRetry(ctx, changes, func(event watch.Event) (bool, error) {
		secret, ok := event.Object.(*corev1.Secret)
		return ok && hasNew(secret.Annotations[i.mark], before.Annotations[i.mark]), nil
	}); err != nil {
		return fmt.Errorf("waiting for the mark %s: %w", i.mark, err)
	}
	return nil
}

// hasNew reports whether a list with commas has an element that it did not have before: a
// mark may stay for two minutes.
func hasNew(now, before string) bool {
	old := strings.Split(before, ",")
	return now != "" && slices.ContainsFunc(strings.Split(now, ","), func(mark string) bool { return !slices.Contains(old, mark) })
}
