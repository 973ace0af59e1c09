package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// server is a Headscale resource and what runs for it.
type server struct{ namespace, name, secret string }

// newServer applies a Headscale with fields of its spec beside version and server_url.
func newServer(ctx context.Context, namespace, name, version, more string) *server {
	GinkgoHelper()
	s := &server{namespace: namespace, name: name, secret: "headscale-api-key"}
	if name != "headscale" {
		s.secret = name + "-api-key"
	}
	apply(ctx, fmt.Sprintf(`
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: %s, namespace: %s}
spec:
  version: %s
  config: {server_url: "%s"}
  api_key: {secret_name: %s, expiration: 2160h, rotation_buffer: 240h}
%s`, name, namespace, version, s.url(), s.secret, more))
	return s
}

// url is the address of Headscale's Service.
func (s *server) url() string {
	return fmt.Sprintf("http://%s.%s.svc.cluster.local:8080", s.name, s.namespace)
}

// key identifies an object of a name in the server's namespace.
func (s *server) key(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: s.namespace, Name: name}
}

// patch changes the resource.
func (s *server) patch(ctx context.Context, patch string) {
	GinkgoHelper()
	object := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.name}}
	Expect(admin.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// pod reads the pod; an error is the caller's.
func (s *server) pod(ctx context.Context) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := admin.Get(ctx, s.key(s.name+"-0"), pod)
	return pod, err
}

// mustPod reads the pod.
func (s *server) mustPod(ctx context.Context) *corev1.Pod {
	GinkgoHelper()
	pod, err := s.pod(ctx)
	Expect(err).NotTo(HaveOccurred())
	return pod
}

// awaitReady waits until the resource is ready in its present generation.
func (s *server) awaitReady(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) { s.expectReady(ctx, g) }).Should(Succeed())
}

func (s *server) expectReady(ctx context.Context, g Gomega) {
	object := &v1beta1.Headscale{}
	g.Expect(admin.Get(ctx, s.key(s.name), object)).To(Succeed())
	ready := meta.FindStatusCondition(object.Status.Conditions, v1beta1.ConditionReady)
	g.Expect(ready).NotTo(BeNil())
	g.Expect(ready.Status).To(Equal(metav1.ConditionTrue), ready.Message)
	g.Expect(ready.ObservedGeneration).To(Equal(object.Generation))
}

// readKey reads the key from the Secret, or "".
func (s *server) readKey(ctx context.Context) string {
	secret := &corev1.Secret{}
	if admin.Get(ctx, s.key(s.secret), secret) != nil {
		return ""
	}
	return string(secret.Data[v1beta1.SecretDataKey])
}

// keepsItsPromises waits until everything is at rest, and sees that then exactly one
// unexpired key is in Headscale, that it is the one in the Secret, and that it works
// from another pod. It returns the key.
func (s *server) keepsItsPromises(ctx context.Context) string {
	GinkgoHelper()
	var key string
	Eventually(func(g Gomega) {
		s.expectReady(ctx, g)
		secret := &corev1.Secret{}
		g.Expect(admin.Get(ctx, s.key(s.secret), secret)).To(Succeed())
		g.Expect(secret.Annotations).NotTo(Or(HaveKey(v1beta1.AnnotationPending), HaveKey(v1beta1.AnnotationRetiring)))
		key = string(secret.Data[v1beta1.SecretDataKey])
		unexpired := s.unexpired(ctx, g, key)
		g.Expect(unexpired).To(HaveLen(1))
		g.Expect(unexpired[0]).To(ContainSubstring(secret.Annotations[v1beta1.AnnotationKeyPrefix]))
	}).Should(Succeed())
	return key
}

// unexpired lists the prefixes of all keys that Headscale honors.
func (s *server) unexpired(ctx context.Context, g Gomega, key string) []string {
	result, err := callHeadscale(ctx, http.MethodGet, s.url()+"/api/v1/apikey", key, "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result.Status).To(Equal(http.StatusOK), result.Body)
	var list struct {
		APIKeys []struct {
			Prefix     string
			Expiration time.Time
		}
	}
	g.Expect(json.Unmarshal([]byte(result.Body), &list)).To(Succeed())
	var prefixes []string
	for _, listed := range list.APIKeys {
		if listed.Expiration.After(time.Now()) {
			prefixes = append(prefixes, listed.Prefix)
		}
	}
	return prefixes
}

// awaitOtherKey waits until the Secret holds a key other than the old one.
func (s *server) awaitOtherKey(ctx context.Context, old string) string {
	GinkgoHelper()
	var key string
	Eventually(func(g Gomega) {
		key = s.readKey(ctx)
		g.Expect(key).NotTo(Or(BeEmpty(), Equal(old)))
	}).Should(Succeed())
	return key
}

// requestRotation asks for a new key.
func (s *server) requestRotation(ctx context.Context) {
	GinkgoHelper()
	mustKube(ctx, "annotate", "-n", s.namespace, "headscale/"+s.name, "--overwrite",
		v1beta1.AnnotationRotateRequestedAt+"="+time.Now().UTC().Format(time.RFC3339Nano))
}

// isRefused waits until Headscale no longer honors a key.
func (s *server) isRefused(ctx context.Context, key string) {
	GinkgoHelper()
	Eventually(func() int { return statusOf(ctx, s.url()+"/api/v1/user", key) }).Should(Equal(http.StatusUnauthorized))
}

// awaitRestart waits until another pod than the old one runs for the resource, with all
// its containers.
func (s *server) awaitRestart(ctx context.Context, old types.UID) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		pod, err := s.pod(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(pod.UID).NotTo(Equal(old))
		g.Expect(pod.Status.Conditions).To(ContainElement(And(HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))))
	}).Should(Succeed())
	s.awaitReady(ctx)
}

// awaitContainerRestart waits until a container of the pod was restarted, which is the
// first time for this pod.
func (s *server) awaitContainerRestart(ctx context.Context, container string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		pod, err := s.pod(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(pod.Status.ContainerStatuses).To(ContainElement(And(
			HaveField("Name", container), HaveField("Ready", true), HaveField("RestartCount", BeNumerically("==", 1)))))
	}).Should(Succeed())
}
