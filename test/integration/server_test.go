package integration_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/podrunner"
)

// Names of the pod's containers.
const (
	containerHeadscale = "headscale"
	containerManager   = "apikey-manager"
)

// server is a Headscale resource with the pod that runs for it.
type server struct {
	key client.ObjectKey
	pod *podrunner.Runner
}

// newNamespace makes a namespace and returns its name.
func newNamespace(ctx context.Context) string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "hs-"}}
	Expect(admin.Create(ctx, namespace)).To(Succeed())
	return namespace.Name
}

// apply applies a manifest as a user does.
func apply(ctx context.Context, namespace, manifest string) {
	GinkgoHelper()
	path := filepath.Join(GinkgoT().TempDir(), "manifest.yaml")
	Expect(os.WriteFile(path, []byte(manifest), 0o600)).To(Succeed())
	_, err := plane.Kubectl(ctx, "apply", "-n", namespace, "-f", path)
	Expect(err).NotTo(HaveOccurred())
}

// runPod runs the pod of a Headscale until the end of the spec, or of the
// container of ordered specs.
func runPod(namespace, name string) *server {
	s := &server{key: client.ObjectKey{Namespace: namespace, Name: name}}
	var stop func()
	s.pod, stop = podrunner.StartInWorld(world, s.key, GinkgoWriter)
	DeferCleanup(stop)
	return s
}

// patch changes the resource.
func (s *server) patch(ctx context.Context, patch string) {
	GinkgoHelper()
	headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: s.key.Name}}
	Expect(admin.Patch(ctx, headscale, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// get reads the resource.
func (s *server) get(ctx context.Context) *v1beta1.Headscale {
	GinkgoHelper()
	headscale := &v1beta1.Headscale{}
	Expect(admin.Get(ctx, s.key, headscale)).To(Succeed())
	return headscale
}

// awaitReady waits until the resource is ready in its present generation.
func (s *server) awaitReady(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		headscale := &v1beta1.Headscale{}
		g.Expect(admin.Get(ctx, s.key, headscale)).To(Succeed())
		ready := meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionReady)
		g.Expect(ready).NotTo(BeNil())
		g.Expect(ready.Status).To(Equal(metav1.ConditionTrue), ready.Message)
		g.Expect(ready.ObservedGeneration).To(Equal(headscale.Generation))
	}).Should(Succeed())
}

// secret reads the API key Secret.
func (s *server) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := admin.Get(ctx, client.ObjectKey{Namespace: s.key.Namespace, Name: name}, secret)
	return secret, err
}

// awaitKey waits until the Secret holds a key other than the old one, and returns
// the Secret.
func (s *server) awaitKey(ctx context.Context, name, old string) *corev1.Secret {
	GinkgoHelper()
	var secret *corev1.Secret
	Eventually(func(g Gomega) {
		var err error
		secret, err = s.secret(ctx, name)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(keyOf(secret)).NotTo(Or(BeEmpty(), Equal(old)))
	}).Should(Succeed())
	return secret
}

// awaitRest waits until nothing of a rotation is left to do, and returns the Secret.
func (s *server) awaitRest(ctx context.Context, name string) *corev1.Secret {
	GinkgoHelper()
	var secret *corev1.Secret
	Eventually(func(g Gomega) {
		var err error
		secret, err = s.secret(ctx, name)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(keyOf(secret)).NotTo(BeEmpty())
		g.Expect(secret.Annotations).NotTo(Or(HaveKey(v1beta1.AnnotationPending), HaveKey(v1beta1.AnnotationRetiring)))
	}).WithTimeout(3 * time.Minute).Should(Succeed()) // A key that did not come is looked for for two minutes.
	return secret
}

// keyOf is the key that a Secret holds.
func keyOf(secret *corev1.Secret) string {
	return string(secret.Data[v1beta1.SecretDataKey])
}

// keyStatus is the HTTP status that Headscale's REST API answers a key with; 0
// when it does not answer.
func (s *server) keyStatus(ctx context.Context, key string) int {
	status, err := env.KeyStatus(ctx, "http://"+s.pod.Address(containerHeadscale, "http"), key)
	if err != nil {
		return 0
	}
	return status
}

// ask returns what the API Key Manager answers on its own port.
func (s *server) ask(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.pod.Address(containerManager, "apikey-metrics")+path, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("%s answered with %s: %s", path, response.Status, body))
	}
	return string(body), err
}

// measures are the values of the API Key Manager's metrics, by the series as they are
// printed.
func (s *server) measures(ctx context.Context) (map[string]float64, error) {
	text, err := s.ask(ctx, "/metrics")
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		series, value, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found || series == "#" {
			continue
		}
		if number, err := strconv.ParseFloat(value[strings.LastIndexByte(value, ' ')+1:], 64); err == nil {
			values[series] = number
		}
	}
	return values, err
}
