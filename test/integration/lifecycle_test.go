package integration_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

const secretName = "headscale-api-key"

var _ = Describe("The sample", Ordered, func() {
	var (
		hs   *server
		keys []string
	)

	// expectContract checks everything that the contract says of a Secret at rest.
	expectContract := func(secret *corev1.Secret, lifetime time.Duration) {
		GinkgoHelper()
		Expect(secret.Type).To(Equal(corev1.SecretTypeOpaque))
		Expect(secret.Data).To(And(HaveLen(1), HaveKey("api-key")))
		Expect(secret.Labels).To(Equal(map[string]string{
			"app.kubernetes.io/managed-by": "headscale-operator",
			"app.kubernetes.io/component":  "api-key",
		}))
		Expect(secret.Annotations).To(And(HaveLen(5), HaveKey("api-key.headscale.infrado.cloud/admin-certificate"),
			HaveKey("api-key.headscale.infrado.cloud/expiration"), HaveKey("api-key.headscale.infrado.cloud/created-at"),
			HaveKey("api-key.headscale.infrado.cloud/key-prefix"), HaveKey("api-key.headscale.infrado.cloud/key-digest")))
		created, err := time.Parse(time.RFC3339, secret.Annotations[v1beta1.AnnotationCreatedAt])
		Expect(err).NotTo(HaveOccurred())
		expiration, err := time.Parse(time.RFC3339, secret.Annotations[v1beta1.AnnotationExpiration])
		Expect(err).NotTo(HaveOccurred())
		Expect(created).To(BeTemporally("~", time.Now(), 5*time.Minute))
		Expect(expiration).To(BeTemporally("~", created.Add(lifetime), 2*time.Minute))
		Expect(keyOf(secret)).To(MatchRegexp(`^hskey-api-%s-[A-Za-z0-9_-]{64}$`,
			regexp.QuoteMeta(secret.Annotations[v1beta1.AnnotationKeyPrefix])))
	}

	BeforeAll(func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		hs = runPod(namespace, "headscale")
		_, err := plane.Kubectl(ctx, "apply", "-n", namespace, "-k", filepath.Join(root, "config", "samples"))
		Expect(err).NotTo(HaveOccurred())
	})

	It("gets a key that Headscale's REST API accepts, in a Secret as the contract says", func(ctx SpecContext) {
		hs.awaitReady(ctx)
		readyUser(ctx, hs.key.Namespace, "alice")
		secret := hs.awaitRest(ctx, secretName)
		expectContract(secret, 2160*time.Hour)
		keys = append(keys, keyOf(secret))
		Expect(hs.keyStatus(ctx, keys[0])).To(Equal(http.StatusOK))
		Expect(hs.get(ctx).Status.APIKey).To(And(
			HaveField("SecretName", secretName), HaveField("KeyPrefix", secret.Annotations[v1beta1.AnnotationKeyPrefix])))
	})

	It("answers the commands that users run when they look for trouble", func(ctx SpecContext) {
		namespace := hs.key.Namespace
		account := "--as=system:serviceaccount:" + namespace + ":headscale"
		canI := func(args ...string) string {
			// An answer of no is an exit status of 1, too.
			output, _ := plane.Kubectl(ctx, append([]string{"auth", "can-i", account, "-n", namespace}, args...)...)
			return strings.TrimSpace(output)
		}
		Expect(canI("create", "secrets")).To(Equal("yes"))
		Expect(canI("update", "secrets/"+secretName)).To(Equal("yes"))
		Expect(canI("update", "secrets/other")).To(Equal("no"))

		secret, err := hs.secret(ctx, secretName)
		Expect(err).NotTo(HaveOccurred())
		Expect(plane.Kubectl(ctx, "get", "secret", "-n", namespace, secretName, "-o",
			`jsonpath={.metadata.annotations.api-key\.headscale\.infrado\.cloud/expiration}`)).
			To(Equal(secret.Annotations[v1beta1.AnnotationExpiration]))

		table, err := plane.Kubectl(ctx, "get", "hs", "-n", namespace)
		Expect(err).NotTo(HaveOccurred())
		lines := strings.Split(strings.TrimSpace(table), "\n")
		Expect(regexp.MustCompile(` {2,}`).Split(lines[0], -1)).To(Equal(
			[]string{"NAME", "VERSION", "READY", "REASON", "SECRET", "KEY EXPIRES", "AGE"}))
		Expect(strings.Fields(lines[1])[:5]).To(Equal(
			[]string{"headscale", serverbuild.DefaultHeadscale, "True", "Ready", secretName}))

		Expect(plane.Kubectl(ctx, "wait", "-n", namespace, "--for=condition=Ready", "--timeout=10s", "headscale/headscale")).
			To(ContainSubstring("condition met"))
	})

	It("has the key replaced when keys are to live shorter: the new one works, the old one is refused", func(ctx SpecContext) {
		// A key that lives ten minutes is replaced after six seconds.
		hs.patch(ctx, `{"spec":{"api_key":{"expiration":"10m","rotation_buffer":"9m54s"}}}`)
		keys = append(keys, keyOf(hs.awaitKey(ctx, secretName, keys[0])))
		Eventually(hs.keyStatus).WithContext(ctx).WithArguments(keys[0]).Should(Equal(http.StatusUnauthorized))
		expectContract(hs.awaitRest(ctx, secretName), 10*time.Minute)
	})

	It("has the key replaced again and again as time goes by", func(ctx SpecContext) {
		for range 2 {
			old := keys[len(keys)-1]
			var renewed string
			Eventually(func(g Gomega) { // A key may be replaced between the two.
				renewed = keyOf(hs.awaitKey(ctx, secretName, old))
				g.Expect(hs.keyStatus(ctx, renewed)).To(Equal(http.StatusOK))
			}).Should(Succeed())
			// It would have lived for ten minutes: it is refused because it was expired.
			Eventually(hs.keyStatus).WithContext(ctx).WithArguments(old).Should(Equal(http.StatusUnauthorized))
			keys = append(keys, renewed)
		}
		hs.patch(ctx, `{"spec":{"api_key":{"rotation_buffer":"5m"}}}`)
		hs.awaitReady(ctx)
	})

	It("has the key replaced when somebody asks for it", func(ctx SpecContext) {
		// The pod of the change before is up, so that no key is on its way.
		old := keyOf(hs.awaitRest(ctx, secretName))
		Expect(hs.keyStatus(ctx, old)).To(Equal(http.StatusOK))
		hs.patch(ctx, `{"metadata":{"annotations":{"api-key.headscale.infrado.cloud/rotate-requested-at":"now"}}}`)
		secret := hs.awaitKey(ctx, secretName, old)
		keys = append(keys, old, keyOf(secret))
		Eventually(hs.keyStatus).WithContext(ctx).WithArguments(old).Should(Equal(http.StatusUnauthorized))
		Expect(hs.keyStatus(ctx, keyOf(secret))).To(Equal(http.StatusOK))
		Expect(hs.awaitRest(ctx, secretName).Annotations).To(HaveKeyWithValue(v1beta1.AnnotationRotateHandled, "now"))
	})

	It("tells in its metrics what it did", func(ctx SpecContext) {
		secret := hs.awaitRest(ctx, secretName)
		expiration, err := time.Parse(time.RFC3339, secret.Annotations[v1beta1.AnnotationExpiration])
		Expect(err).NotTo(HaveOccurred())
		Eventually(hs.measures).WithContext(ctx).Should(And(
			HaveKeyWithValue("headscale_apikey_expiration_timestamp_seconds", BeNumerically("~", expiration.Unix(), 1)),
			HaveKeyWithValue("headscale_apikey_next_rotation_timestamp_seconds", BeNumerically("~", expiration.Add(-5*time.Minute).Unix(), 1)),
			HaveKeyWithValue(`headscale_apikey_rotations_total{reason="RotationRequested"}`, BeEquivalentTo(1)),
			HaveKeyWithValue("headscale_apikey_keys_revoked_total", BeNumerically(">=", 1)),
			HaveKeyWithValue("headscale_apikey_headscale_up", BeEquivalentTo(1)),
			HaveKeyWithValue(`headscale_apikey_headscale_info{transport="grpc",version="`+serverbuild.DefaultHeadscale+`"}`, BeEquivalentTo(1)),
			HaveKeyWithValue(`headscale_apikey_blocked{reason="SecretNotOurs"}`, BeZero()),
			HaveKeyWithValue("process_resident_memory_bytes", BeNumerically(">", 0)),
		))
		Expect(hs.ask(ctx, "/healthz")).To(Equal("ok\n"))
	})

	It("shows no key in any log, argument, environment or metric, and not in the resource", func(ctx SpecContext) {
		resource, err := plane.Kubectl(ctx, "get", "headscale,headscaleuser,events,statefulset,configmap", "-n", hs.key.Namespace, "-o", "yaml")
		Expect(err).NotTo(HaveOccurred())
		metrics, err := hs.ask(ctx, "/metrics")
		Expect(err).NotTo(HaveOccurred())
		Expect(metrics).To(ContainSubstring("headscale_apikey_checks_total"))
		said := strings.Join([]string{
			metrics, hs.pod.Log(containerHeadscale), hs.pod.Log(containerManager), world.Operator.Process.Log().String(), resource,
		}, "\n")
		Expect(said).To(ContainSubstring("Waiting for Headscale to be ready..."))
		for _, key := range keys {
			Expect(strings.Contains(said, key)).To(BeFalse(), "a key is printed in full")
			// Its secret half alone would do for whoever finds it.
			Expect(strings.Contains(said, key[len(key)-64:])).To(BeFalse(), "the secret half of a key is printed")
		}
	})

	It("leaves its socket in a volume of the pod", func() {
		info, err := os.Stat(hs.pod.HostPath(containerManager, v1beta1.DefaultSocketPath))
		Expect(err).NotTo(HaveOccurred())
		Expect(info.Mode().Type()).To(Equal(os.ModeSocket))
		Expect(hs.pod.HostPath(containerManager, v1beta1.DefaultSocketPath)).
			To(Equal(hs.pod.HostPath(containerHeadscale, v1beta1.DefaultSocketPath)))
	})
})
