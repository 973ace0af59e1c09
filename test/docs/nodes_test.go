package docs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/podrunner"
)

// nodes run the pods of all StatefulSets.
type nodes struct {
	mutex sync.Mutex
	pods  map[client.ObjectKey]*runningPod
}

// runningPod is the pod of one StatefulSet.
type runningPod struct {
	*podrunner.Runner
	stop func()
}

// lookEvery is how often the nodes look for new StatefulSets.
const lookEvery = 100 * time.Millisecond

// follow runs the pod of every StatefulSet until the context ends.
func (n *nodes) follow(ctx context.Context) {
	defer n.clear()
	for {
		sets := &appsv1.StatefulSetList{}
		if err := admin.List(ctx, sets); err == nil {
			for i := range sets.Items {
				n.run(client.ObjectKeyFromObject(&sets.Items[i]))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
		}
	}
}

// run runs the pod of a StatefulSet, unless it runs already.
func (n *nodes) run(key client.ObjectKey) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if n.pods[key] != nil {
		return
	}
	runner, stop := podrunner.StartInWorld(world, key, GinkgoWriter)
	n.pods[key] = &runningPod{runner, stop}
}

// clear ends all pods and forgets their volumes.
func (n *nodes) clear() {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for key, pod := range n.pods {
		pod.stop()
		_ = os.RemoveAll(filepath.Join(guard.Dir(), key.Namespace+"-"+key.Name))
		delete(n.pods, key)
	}
}

// url is where Headscale of a pod can be reached, or "".
func (n *nodes) url(key client.ObjectKey) string {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if pod := n.pods[key]; pod != nil && pod.Address("headscale", "http") != "" {
		return "http://" + pod.Address("headscale", "http")
	}
	return ""
}

// describe writes into a directory what testdata/kubectl answers with.
func (n *nodes) describe(ctx context.Context, dir string) error {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for key, pod := range n.pods {
		set := &appsv1.StatefulSet{}
		if err := client.IgnoreNotFound(admin.Get(ctx, key, set)); err != nil {
			return err
		}
		for i := range set.Spec.Template.Spec.Containers {
			container := &set.Spec.Template.Spec.Containers[i]
			files := filepath.Join(dir, key.Namespace, key.Name+"-0", container.Name)
			if err := os.MkdirAll(files, 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(files, "log"), []byte(pod.Log(container.Name)), 0o600); err != nil {
				return err
			}
			version, isHeadscale := strings.CutPrefix(container.Image, v1beta1.DefaultImage+":")
			if !isHeadscale {
				continue
			}
			script := fmt.Sprintf("#!/bin/sh\nHEADSCALE_CLI_ADDRESS= HEADSCALE_CONFIG=%q exec %q \"$@\"\n",
				pod.HostPath(container.Name, "/etc/headscale/config.yaml"), world.Servers.Headscale[version])
			if err := os.WriteFile(filepath.Join(files, "headscale"), []byte(script), 0o700); err != nil {
				return err
			}
		}
	}
	return nil
}
