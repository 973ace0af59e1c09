package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
)

// Where things are in a container.
const (
	tokenDir = "/var/run/secrets/kubernetes.io/serviceaccount"
	// target is the first process of the container that is looked at.
	target = "/proc/1"
)

// findings are what testpod inspect has found in a container.
type findings struct {
	Writable, Programs, Keys, Tokens, Unread []string
	Read                                     int
}

// insideSpecs look at the pods from within.
func insideSpecs(get func() *server) {
	It("shows the container headscale no key and no token, and no shell", func(ctx SpecContext) {
		found := inspect(ctx, get().mustPod(ctx), "headscale")
		Expect(found.Keys).To(BeEmpty())
		Expect(found.Tokens).To(BeEmpty())
		Expect(found.Programs).To(ConsistOf("/headscale"))
		Expect(found.Writable).To(ConsistOf("/tmp", "/var/lib/headscale", "/var/run/headscale"))
	})

	It("gives the container headscale no way to the Secret, which the sidecar has", func(ctx SpecContext) {
		hs := get()
		pod, path := hs.mustPod(ctx), "/api/v1/namespaces/"+hs.namespace+"/secrets/"
		Expect(asked(ctx, pod, "headscale", path+hs.secret)).To(Equal(reply{Status: http.StatusForbidden}), "it has no token")
		// The same question as the sidecar: so it was put in the right way.
		Expect(asked(ctx, pod, "apikey-manager", path+hs.secret)).To(Equal(reply{Status: http.StatusOK, Token: true}))
		Expect(asked(ctx, pod, "apikey-manager", path+"another")).To(Equal(reply{Status: http.StatusForbidden, Token: true}))
	})

	It("shows the sidecar its own token and nothing to write to", func(ctx SpecContext) {
		found := inspect(ctx, get().mustPod(ctx), "apikey-manager")
		Expect(found.Keys).To(BeEmpty())
		Expect(found.Tokens).NotTo(BeEmpty())
		Expect(found.Tokens).To(HaveEach(HavePrefix(tokenDir+"/")), "the sidecar's token is where clients look for it")
		Expect(found.Programs).To(ConsistOf("/apikey-manager"))
		Expect(found.Writable).To(BeEmpty())
	})

	It("shows the operator its own token, no key, no shell and nothing to write to", func(ctx SpecContext) {
		pod := operatorPods(ctx)[0]
		found := inspect(ctx, &pod, "manager")
		Expect(found.Keys).To(BeEmpty())
		Expect(found.Tokens).To(HaveEach(HavePrefix(tokenDir + "/")))
		Expect(found.Programs).To(ConsistOf("/manager"))
		Expect(found.Writable).To(BeEmpty())
	})

	It("lets the sidecar's token do what the golden list has, and nothing else", func(ctx SpecContext) {
		hs := get()
		list := []string{"auth", "can-i", "--list", "--no-headers", "-n", hs.namespace}
		sidecars := lines(withTokenOf(ctx, hs.mustPod(ctx), "apikey-manager", kubectlImage, append([]string{"/kubectl"}, list...)...))
		// What everyone may do differs with the version of Kubernetes, and must be harmless.
		everyones := lines(mustKube(ctx, append(list, "--as=system:serviceaccount:"+hs.namespace+":nobody",
			"--as-group=system:serviceaccounts", "--as-group=system:serviceaccounts:"+hs.namespace, "--as-group=system:authenticated")...))
		Expect(everyones).NotTo(ContainElement(HavePrefix("secrets ")))
		Expect(everyones).To(HaveEach(Or(MatchRegexp(`^selfsubject\S+ \[\] \[\] \[create\]$`), MatchRegexp(`\[(get|list|watch| )+\]$`))))
		Expect(sidecars).To(ContainElements(everyones))
		golden, err := os.ReadFile(filepath.Join(root, "test", "e2e", "testdata", "can-i.txt"))
		Expect(err).NotTo(HaveOccurred())
		own := slices.DeleteFunc(sidecars, func(line string) bool { return slices.Contains(everyones, line) })
		Expect(own).To(Equal(lines(string(golden))))
	})
}

// lines are the different lines of a table, sorted, with one space between the columns.
func lines(table string) []string {
	var all []string
	for line := range strings.Lines(table) {
		all = append(all, strings.Join(strings.Fields(line), " "))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// inspections counts the containers that were put into pods, whose names must differ.
var inspections int

// debug runs a program in the process namespace of a container, and returns what it
// printed.
func debug(ctx context.Context, pod *corev1.Pod, container, image string, flags []string, command ...string) string {
	GinkgoHelper()
	inspections++
	name := fmt.Sprintf("inspect-%d", inspections)
	args := append([]string{"debug", "-n", pod.Namespace, "pod/" + pod.Name, "--image=" + image, "--image-pull-policy=IfNotPresent",
		"--target=" + container, "--profile=restricted", "-c", name, "--quiet"}, flags...)
	mustKube(ctx, append(append(args, "--"), command...)...)
	var printed string
	Eventually(func(g Gomega) {
		status, err := kube(ctx, "get", "pod", "-n", pod.Namespace, pod.Name, "-o",
			`jsonpath={.status.ephemeralContainerStatuses[?(@.name=="`+name+`")].state.terminated.exitCode}`)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(status).NotTo(BeEmpty())
		printed, err = kube(ctx, "logs", "-n", pod.Namespace, pod.Name, "-c", name)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(status).To(Equal("0"), printed)
	}).Should(Succeed())
	return printed
}

// inspect looks through the file system of a container, of which nothing may be hidden
// from it, and through the environment and the arguments of its process.
func inspect(ctx context.Context, pod *corev1.Pod, container string) findings {
	GinkgoHelper()
	var found findings
	printed := debug(ctx, pod, container, testpodImage, nil, "/testpod", "inspect", target)
	Expect(json.Unmarshal([]byte(printed), &found)).To(Succeed(), printed)
	Expect(found.Read).To(BeNumerically(">", 2), "more than the environment and the arguments")
	Expect(found.Unread).To(BeEmpty())
	return found
}

// reply is what the API server answered, and whether the container has a token.
type reply struct {
	Status int
	Token  bool
}

// asked sends a request to the API server with what is in a container's file system.
func asked(ctx context.Context, pod *corev1.Pod, container, path string) reply {
	GinkgoHelper()
	var result reply
	printed := debug(ctx, pod, container, testpodImage, nil, "/testpod", "get", target+"/root", path)
	Expect(json.Unmarshal([]byte(printed), &result)).To(Succeed(), printed)
	return result
}

// withTokenOf runs a program that finds the token of a container where clients look for
// it.
func withTokenOf(ctx context.Context, pod *corev1.Pod, container, image string, command ...string) string {
	GinkgoHelper()
	var mounts []corev1.VolumeMount
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == container {
			mounts = slices.DeleteFunc(slices.Clone(pod.Spec.Containers[i].VolumeMounts), func(m corev1.VolumeMount) bool { return m.MountPath != tokenDir })
		}
	}
	Expect(mounts).To(HaveLen(1))
	custom, err := json.Marshal(map[string]any{"volumeMounts": mounts})
	Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(GinkgoT().TempDir(), "container.json")
	Expect(os.WriteFile(file, custom, 0o600)).To(Succeed())
	return debug(ctx, pod, container, image, []string{"--custom=" + file}, command...)
}
