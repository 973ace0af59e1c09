package headscale

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// manifest is a Headscale of which a spec changes one place.
const manifest = `
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata:
  name: %[1]s
spec: %[2]s
`

// specWith is a spec in YAML's short form: what every Headscale needs, and more.
func specWith(config, rest string) string {
	return fmt.Sprintf(`{version: v0.29.3, config: {server_url: "http://headscale.example.com"%s}%s}`, config, rest)
}

// projected is the rest of a spec with a volume of one source.
func projected(source string) string {
	return ", pod: {volumes: [{name: a, projected: {sources: [{" + source + "}]}}]}"
}

var _ = Describe("Admission", func() {
	var namespace string

	BeforeEach(func(ctx context.Context) {
		made := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "admission-"}}
		Expect(admin.Create(ctx, made)).To(Succeed())
		namespace = made.Name
	})

	stored := func(ctx context.Context, spec string) map[string]any {
		GinkgoHelper()
		Expect(create(ctx, namespace, fmt.Sprintf(manifest, "headscale", spec))).To(Succeed())
		object := &unstructured.Unstructured{}
		object.SetGroupVersionKind(v1beta1.GroupVersion.WithKind("Headscale"))
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "headscale"}, object)).To(Succeed())
		section, found, err := unstructured.NestedMap(object.Object, "spec")
		Expect(err).NotTo(HaveOccurred())
		Expect(found).To(BeTrue())
		return section
	}

	It("fills in the defaults of the shortest manifest", func(ctx context.Context) {
		Expect(stored(ctx, specWith("", ""))).To(Equal(map[string]any{
			"version":                 "v0.29.3",
			"image":                   "headscale/headscale",
			"preflight":               "WhenPossible",
			"replicas":                int64(1),
			"config":                  map[string]any{"server_url": "http://headscale.example.com"},
			"persistent_volume_claim": map[string]any{"size": "1Gi"},
			"api_key": map[string]any{
				"auto_manage":      true,
				"secret_name":      "headscale-api-key",
				"expiration":       "2160h",
				"rotation_buffer":  "1920h",
				"revocation_delay": "0s",
			},
		}))
	})

	DescribeTable("fills in the defaults of a part",
		func(ctx context.Context, rest, section string, want map[string]any) {
			Expect(stored(ctx, specWith("", ", "+rest))).To(HaveKeyWithValue(section, want))
		},
		Entry("an empty api_key", "api_key: {}", "api_key", map[string]any{
			"auto_manage": true, "secret_name": "headscale-api-key", "expiration": "2160h", "revocation_delay": "0s",
		}),
		Entry("an api_key of null", "api_key: null", "api_key", map[string]any{
			"auto_manage": true, "secret_name": "headscale-api-key", "expiration": "2160h", "rotation_buffer": "1920h", "revocation_delay": "0s",
		}),
		Entry("an expiration alone", "api_key: {expiration: 720h}", "api_key", map[string]any{
			"auto_manage": true, "secret_name": "headscale-api-key", "expiration": "720h", "revocation_delay": "0s",
		}),
		Entry("an empty volume", "persistent_volume_claim: {}", "persistent_volume_claim", map[string]any{"size": "1Gi"}),
	)

	It("passes the config through whole", func(ctx context.Context) {
		Expect(stored(ctx, specWith(`, oidc: {scope: [openid], extra_params: {domain_hint: x}}, new_in_v99: {deep: [1, 2.5, null]}, database: {type: postgres, postgres: {port: 5432}}`, ""))).To(
			HaveKeyWithValue("config", Equal(map[string]any{
				"server_url": "http://headscale.example.com",
				"oidc":       map[string]any{"scope": []any{"openid"}, "extra_params": map[string]any{"domain_hint": "x"}},
				"new_in_v99": map[string]any{"deep": []any{int64(1), 2.5, nil}},
				"database":   map[string]any{"type": "postgres", "postgres": map[string]any{"port": int64(5432)}},
			})))
	})

	DescribeTable("lets pass",
		func(ctx context.Context, spec string) {
			Expect(create(ctx, namespace, fmt.Sprintf(manifest, "headscale", spec))).To(Succeed())
		},
		Entry("a version without v", `{version: 0.26.0, config: {server_url: "http://a"}}`),
		Entry("a release candidate", `{version: v0.30.0-beta.1, config: {server_url: "http://a"}}`),
		Entry("the next major version", `{version: v1.0.0, config: {server_url: "http://a"}}`),
		Entry("an image with a digest", specWith("", `, image: "headscale/headscale@sha256:0123"`)),
		Entry("no pod", specWith("", `, replicas: 0`)),
		Entry("an IPv6 listener", specWith(`, listen_addr: "[::]:8080"`, "")),
		Entry("a listener on every interface", specWith(`, listen_addr: ":443"`, "")),
		Entry("metrics turned off", specWith(`, metrics_listen_addr: ""`, "")),
		Entry("metrics on loopback, as in Headscale's example", specWith(`, metrics_listen_addr: "127.0.0.1:9090"`, "")),
		Entry("every unit of a duration", specWith("", `, api_key: {expiration: 1h30m30.5s, rotation_buffer: 90m}`)),
		Entry("a hundred years", specWith("", `, api_key: {expiration: 876000h}`)),
		Entry("a short-lived key", specWith("", `, api_key: {expiration: 5s, rotation_buffer: 2s}`)),
		Entry("a revocation delay below the implied buffer", specWith("", `, api_key: {expiration: 90s, revocation_delay: 79s}`)),
		Entry("no revocation delay, however short the key's life", specWith("", `, api_key: {expiration: 1s, revocation_delay: 0s}`)),
		Entry("a size in bytes", specWith("", `, persistent_volume_claim: {size: 1073741824}`)),
		Entry("a token with an audience of its own", specWith("", projected("serviceAccountToken: {path: t, audience: vault}"))),
		Entry("a certificate of a signer of the cluster's owner", specWith("", projected("podCertificate: {signerName: example.com/tls, keyType: ED25519}"))),
		Entry("no storage class", specWith("", `, persistent_volume_claim: {storage_class_name: ""}`)),
	)

	DescribeTable("refuses",
		func(ctx context.Context, spec, field, sentence string) {
			err := create(ctx, namespace, fmt.Sprintf(manifest, "headscale", spec))
			Expect(apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)).To(BeTrue(), "the error: %v", err)
			Expect(err.Error()).To(And(ContainSubstring(field), ContainSubstring(sentence)))
			Expect(err.Error()).NotTo(ContainSubstring("rule evaluation"))
		},
		Entry("days", specWith("", `, api_key: {expiration: 90d}`), "spec.api_key.expiration", "write 90 days as 2160h"),
		Entry("an empty expiration", specWith("", `, api_key: {expiration: ""}`), "spec.api_key.expiration", "must be a positive duration"),
		Entry("an expiration of nothing", specWith("", `, api_key: {expiration: 0s}`), "spec.api_key.expiration", "must be a positive duration"),
		Entry("a negative expiration", specWith("", `, api_key: {expiration: -1h}`), "spec.api_key.expiration", "must be a positive duration"),
		Entry("a number as expiration", specWith("", `, api_key: {expiration: 3600}`), "spec.api_key.expiration", "must be of type string"),
		Entry("an expiration too long to reckon with", specWith("", `, api_key: {expiration: 9999999h}`), "spec.api_key.expiration", "must be a positive duration"),
		Entry("milliseconds", specWith("", `, api_key: {expiration: 500ms}`), "spec.api_key.expiration", "must be a positive duration"),
		Entry("an empty buffer", specWith("", `, api_key: {rotation_buffer: ""}`), "spec.api_key.rotation_buffer", "must be a positive duration"),
		Entry("a buffer of nothing", specWith("", `, api_key: {rotation_buffer: 0s}`), "spec.api_key.rotation_buffer", "must be a positive duration"),
		Entry("a negative buffer", specWith("", `, api_key: {rotation_buffer: -1h}`), "spec.api_key.rotation_buffer", "must be a positive duration"),
		Entry("a buffer equal to the expiration", specWith("", `, api_key: {expiration: 1h, rotation_buffer: 60m}`), "spec.api_key.rotation_buffer", "rotation_buffer must be less than expiration"),
		Entry("a buffer above the expiration", specWith("", `, api_key: {expiration: 1h, rotation_buffer: 2h}`), "spec.api_key.rotation_buffer", "rotation_buffer must be less than expiration"),
		Entry("a buffer above the default expiration", specWith("", `, api_key: {rotation_buffer: 2160h}`), "spec.api_key.rotation_buffer", "rotation_buffer must be less than expiration"),
		Entry("a delay equal to the buffer", specWith("", `, api_key: {expiration: 1h, rotation_buffer: 30m, revocation_delay: 30m}`), "spec.api_key.revocation_delay", "revocation_delay must be less than rotation_buffer"),
		Entry("a delay equal to the implied buffer", specWith("", `, api_key: {expiration: 90s, revocation_delay: 80s}`), "spec.api_key.revocation_delay", "which is 8/9 of the expiration"),
		Entry("a delay above a buffer of milliseconds", specWith("", `, api_key: {expiration: 1s, revocation_delay: 0.9s}`), "spec.api_key.revocation_delay", "which is 8/9 of the expiration"),
		Entry("a negative delay", specWith("", `, api_key: {revocation_delay: -1s}`), "spec.api_key.revocation_delay", "must be a duration in hours, minutes and seconds"),
		Entry("a name no Secret can have", specWith("", `, api_key: {secret_name: Not_Valid}`), "spec.api_key.secret_name", "lower-case letters, digits"),
		Entry("an empty Secret name", specWith("", `, api_key: {secret_name: ""}`), "spec.api_key.secret_name", "such as headscale-api-key"),
		Entry("an image with a space", specWith("", `, api_key: {manager_image: "a b"}`), "spec.api_key.manager_image", "without spaces"),
		Entry("an api_key that is not a section", specWith("", `, api_key: true`), "spec.api_key", "must be of type object"),
		Entry("apiKey in camel case", specWith("", `, apiKey: {}`), "spec.apiKey", "unknown field"),
		Entry("an unknown field of api_key", specWith("", `, api_key: {expires: 1h}`), "spec.api_key.expires", "unknown field"),
		Entry("two pods", specWith("", `, replicas: 2`), "spec.replicas", "replicas must be 0 or 1: Headscale is one process with one database"),
		Entry("less than no pod", specWith("", `, replicas: -1`), "spec.replicas", "replicas must be 0 or 1"),
		Entry("a moving tag", `{version: latest, config: {server_url: "http://a"}}`, "spec.version", "a moving tag such as latest is not accepted"),
		Entry("half a version", `{version: v0.29, config: {server_url: "http://a"}}`, "spec.version", "a release of Headscale in full, such as v0.29.3"),
		Entry("a version that is too old", `{version: v0.25.1, config: {server_url: "http://a"}}`, "spec.version", "version must be v0.26.0 or newer"),
		Entry("a version that ends in a dot", `{version: v0.29.3-a., config: {server_url: "http://a"}}`, "spec.version", "a release of Headscale in full"),
		Entry("no version", `{config: {server_url: "http://a"}}`, "spec.version", "Required value"),
		Entry("no config", `{version: v0.29.3}`, "spec.config", "Required value"),
		Entry("no server_url", `{version: v0.29.3, config: {}}`, "spec.config.server_url", "Required value"),
		Entry("an empty server_url", `{version: v0.29.3, config: {server_url: ""}}`, "spec.config.server_url", "server_url must begin with http:// or https://"),
		Entry("server_url without a scheme", `{version: v0.29.3, config: {server_url: headscale.example.com}}`, "spec.config.server_url", "server_url must begin with http:// or https://"),
		Entry("server_url with a space", `{version: v0.29.3, config: {server_url: "https://a b"}}`, "spec.config.server_url", "followed by a host"),
		Entry("server_url with a port and no host", `{version: v0.29.3, config: {server_url: "http://:8080"}}`, "spec.config.server_url", "followed by a host"),
		Entry("server_url without a host", `{version: v0.29.3, config: {server_url: "https:///"}}`, "spec.config.server_url", "followed by a host"),
		Entry("a port alone", specWith(`, listen_addr: "8080"`, ""), "spec.config.listen_addr", "must be host:port with a port from 1 to 65535"),
		Entry("a number as address", specWith(`, listen_addr: 8080`, ""), "spec.config.listen_addr", "must be of type string"),
		Entry("an empty listen_addr", specWith(`, listen_addr: ""`, ""), "spec.config.listen_addr", "must be host:port"),
		Entry("port 0", specWith(`, listen_addr: "0.0.0.0:0"`, ""), "spec.config.listen_addr", "must be host:port with a port from 1 to 65535"),
		Entry("port 65536", specWith(`, grpc_listen_addr: "0.0.0.0:65536"`, ""), "spec.config.grpc_listen_addr", "must be host:port with a port from 1 to 65535"),
		Entry("a named port", specWith(`, listen_addr: "0.0.0.0:http"`, ""), "spec.config.listen_addr", "must be host:port"),
		Entry("IPv6 without brackets", specWith(`, listen_addr: "::1:8080"`, ""), "spec.config.listen_addr", "such as 0.0.0.0:8080, [::]:8080 or :8080"),
		Entry("a listener on loopback", specWith(`, listen_addr: "127.0.0.1:8080"`, ""), "spec.config.listen_addr", "must not be a loopback address"),
		Entry("metrics on a port alone", specWith(`, metrics_listen_addr: "9090"`, ""), "spec.config.metrics_listen_addr", "metrics_listen_addr must be host:port"),
		Entry("STUN on a port alone", specWith(`, derp: {server: {stun_listen_addr: "3478"}}`, ""), "spec.config.derp.server.stun_listen_addr", "must be host:port"),
		Entry("a relative socket", specWith(`, unix_socket: relative.sock`, ""), "spec.config.unix_socket", "must be an absolute path"),
		Entry("a socket in the root directory", specWith(`, unix_socket: /headscale.sock`, ""), "spec.config.unix_socket", "a directory of its own"),
		Entry("a socket by way of the parent", specWith(`, unix_socket: /var/../run/headscale.sock`, ""), "spec.config.unix_socket", "without ., .."),
		Entry("a socket with a colon", specWith(`, unix_socket: "/var/a:b/headscale.sock"`, ""), "spec.config.unix_socket", "a colon"),
		Entry("a socket too long for the kernel", specWith(`, unix_socket: /`+strings.Repeat("long/", 30)+`headscale.sock`, ""), "spec.config.unix_socket", "107"),
		Entry("a relative database", specWith(`, database: {sqlite: {path: db.sqlite}}`, ""), "spec.config.database.sqlite.path", "must be an absolute path"),
		Entry("another kind of database", specWith(`, database: {type: mysql}`, ""), "spec.config.database.type", "database.type must be sqlite or postgres"),
		Entry("a relative certificate", specWith(`, tls_cert_path: tls.crt`, ""), "spec.config.tls_cert_path", "must be an absolute path"),
		Entry("a relative key", specWith(`, tls_key_path: tls.key`, ""), "spec.config.tls_key_path", "must be an absolute path"),
		Entry("a volume of no size", specWith("", `, persistent_volume_claim: {size: "0"}`), "spec.persistent_volume_claim.size", "must be a positive amount, such as 1Gi"),
		Entry("a volume of negative size", specWith("", `, persistent_volume_claim: {size: "-1Gi"}`), "spec.persistent_volume_claim.size", "must be a positive amount"),
		Entry("a size that is not one", specWith("", `, persistent_volume_claim: {size: big}`), "spec.persistent_volume_claim.size", "should match"),
		Entry("a storage class that is not one", specWith("", `, persistent_volume_claim: {storage_class_name: Fast_One}`), "spec.persistent_volume_claim.storage_class_name", "the name of a StorageClass"),
		Entry("an empty image", specWith("", `, image: ""`), "spec.image", "such as headscale/headscale"),
		Entry("an image with a line break", specWith("", `, image: "a\nb"`), "spec.image", "without spaces"),
		Entry("a token without an audience", specWith("", projected("serviceAccountToken: {path: t}")), "spec.pod.volumes[0].projected", "a serviceAccountToken must have an audience of its own, such as vault"),
		Entry("a token with an empty audience", specWith("", projected(`serviceAccountToken: {path: t, audience: ""}`)), "spec.pod.volumes[0].projected", "must have an audience of its own"),
		Entry("a token for the API server", specWith("", projected(`serviceAccountToken: {path: t, audience: "https://kubernetes.default.svc.cluster.local"}`)), "spec.pod.volumes[0].projected", "must have an audience of its own"),
		Entry("a certificate for the API server", specWith("", projected("podCertificate: {signerName: kubernetes.io/kube-apiserver-client-pod, keyType: ED25519}")), "spec.pod.volumes[0].projected", "a podCertificate must not be of a signer of Kubernetes' own"),
		Entry("an unknown field", specWith("", `, tolerance: []`), "spec.tolerance", "unknown field"),
	)

	DescribeTable("refuses a name that cannot be the name of a Service or a pod",
		func(ctx context.Context, name string) {
			err := create(ctx, namespace, fmt.Sprintf(manifest, name, specWith("", "")))
			Expect(err).To(MatchError(ContainSubstring("metadata.name must be at most 52 lower-case letters, digits and '-', beginning with a letter")))
		},
		Entry("with a dot", "head.scale"),
		Entry("beginning with a digit", "1headscale"),
		Entry("too long", strings.Repeat("a", 53)),
	)

	It("takes the longest name, and the objects can be made", func(ctx context.Context) {
		o := startOperator(ctx)
		name := strings.Repeat("a", 52)
		Expect(create(ctx, o.namespace, fmt.Sprintf(manifest, name, specWith("", "")))).To(Succeed())
		runPod(ctx, o.namespace, name, 1)
		Eventually(condition(ctx, o.namespace, name, v1beta1.ConditionAvailable)).WithContext(ctx).Should(be("True", v1beta1.ReasonAvailable, ""))
	})
})
