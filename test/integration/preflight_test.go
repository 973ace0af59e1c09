package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/podrunner"
)

// badConfig is a change that Headscale does not start with, and that nothing else refuses.
type badConfig struct {
	// kind is what is wrong with it, and config a part of spec.config in YAML.
	kind, config string
	// spec is the rest of the spec.
	spec string
	// words are in what every release says of it, or, by release, in what that one says. A
	// release without words, where there are others, starts with it.
	words   string
	by      map[string]string
	outcome v1beta1.PreflightOutcome // left out: Refused
}

// badConfigs are the changes, with ISSUER for the address of an identity provider.
var badConfigs = []badConfig{
	{kind: "DNS", config: `{server_url: "https://vpn.example.com", dns: {magic_dns: true, base_domain: example.com, override_local_dns: true, nameservers: {global: [1.1.1.1]}}}`, words: "server_url cannot be part of base_domain"},
	{kind: "DNS", config: `{dns: {magic_dns: true, base_domain: tail.internal, override_local_dns: true}}`, words: "nameservers.global must be set"},
	{kind: "DNS", config: `{server_url: "https://a.b.example.com", dns: {magic_dns: true, base_domain: b.example.com, override_local_dns: false}}`, words: "server_url cannot be part of base_domain"},
	{kind: "DNS", config: `{server_url: "https://vpn.example.com", dns: {magic_dns: true, base_domain: vpn.example.com, override_local_dns: false}}`, words: "server_url"},
	{kind: "DNS", config: `{dns: {magic_dns: true, base_domain: ""}}`, words: "base_domain"},
	{kind: "DNS records", config: `{dns: {extra_records_path: /files/none.json}}`, words: "no such file or directory"},
	{kind: "DNS records", config: `{dns: {extra_records_path: /files/garbage}}`, words: "invalid character"},
	{kind: "DNS records", config: `{dns: {extra_records_path: /files}}`, words: "is a directory"},
	{kind: "DERP", config: `{derp: {server: {enabled: false}}}`, words: "DERPMap"},
	{kind: "DERP", config: `{derp: {server: {enabled: false}, paths: [/files/none.yaml]}}`, words: "DERPMap"},
	{kind: "DERP", config: `{derp: {server: {enabled: false}, paths: [/files/garbage]}}`, words: "DERPMap"},
	{kind: "policy", config: `{policy: {mode: file, path: /files/none.hujson}}`, words: "no such file or directory"},
	{kind: "policy", config: `{policy: {mode: file, path: /files/garbage}}`, words: "polic"},
	{kind: "policy", config: `{policy: {mode: file, path: /files}}`, words: "is a directory"},
	{kind: "policy", config: `{policy: {mode: file, path: /files/no-group.hujson}}`, words: "group:none"},
	{kind: "policy", config: `{policy: {mode: file, path: /files/no-tag.hujson}}`, words: "tag:none"},
	{kind: "policy", config: `{policy: {mode: file, path: /files/bad-address.hujson}}`, words: "300.1.1.1"},
	{kind: "policy", config: `{policy: {mode: nowhere}}`, by: map[string]string{"v0.26.1": "unsupported policy mode", "v0.27.1": "unsupported policy mode"}},
	{kind: "OIDC", config: `{oidc: {issuer: "no-scheme", client_id: a, client_secret: b}}`, words: "unsupported protocol scheme"},
	{kind: "OIDC", config: `{oidc: {issuer: "ISSUER/none", client_id: a, client_secret: b}}`, words: "404 Not Found"},
	{kind: "OIDC", config: `{oidc: {issuer: "ISSUER/other", client_id: a, client_secret: b}}`, words: "did not match"},
	{kind: "OIDC", config: `{oidc: {issuer: "ISSUER/garbage", client_id: a, client_secret: b}}`, words: "issuer"},
	{kind: "OIDC", config: `{oidc: {issuer: "http://127.0.0.1:1", client_id: a, client_secret: b}}`, words: "connection refused", outcome: v1beta1.PreflightUnknown},
	{kind: "OIDC secret", config: `{oidc: {issuer: "ISSUER", client_id: a, client_secret: b, client_secret_path: /files/garbage}}`, words: "client_secret"},
	{kind: "OIDC secret", config: `{oidc: {issuer: "ISSUER", client_id: a, client_secret_path: /files/none}}`, words: "no such file or directory"},
	{kind: "TLS", config: `{tls_cert_path: /files/none.crt, tls_key_path: /files/none.key}`, words: "no such file or directory"},
	{kind: "TLS", config: `{tls_cert_path: /files/garbage, tls_key_path: /files/garbage}`, words: "TLS"},
	{kind: "Let's Encrypt", config: `{tls_letsencrypt_hostname: vpn.example.com, tls_letsencrypt_challenge_type: DNS-01}`, words: "hallenge"},
	{kind: "Let's Encrypt", config: `{tls_letsencrypt_hostname: vpn.example.com, tls_cert_path: /files/garbage, tls_key_path: /files/garbage}`, words: "tls_letsencrypt_hostname"},
	{kind: "addresses", config: `{prefixes: {v4: 100.64.0.0/99}}`, words: "100.64.0.0/99"},
	{kind: "addresses", config: `{prefixes: {v6: "fd7a::/999"}}`, words: "fd7a::/999"},
	{kind: "addresses", config: `{prefixes: {v4: ""}}`, words: "prefix"},
	{kind: "addresses", config: `{prefixes: {v4: 100.64.0.0/10, allocation: backwards}}`, words: "backwards"},
	{kind: "ephemeral nodes", config: `{ephemeral_node_inactivity_timeout: 1s, node: {ephemeral: {inactivity_timeout: 1s}}}`, words: "1s"},
	{kind: "private key", config: `{noise: {private_key_path: /files/garbage}}`, words: "private key"},
	{kind: "private key", config: `{noise: {private_key_path: /var/lib/headscale/same.key}, derp: {server: {enabled: true, private_key_path: /var/lib/headscale/same.key}}}`, words: "are the same"},
	{kind: "environment", config: `{}`, spec: `{pod: {env: [{name: HEADSCALE_PREFIXES_V4, value: none}]}}`, words: "none"},
	{kind: "environment", config: `{}`, spec: `{pod: {env: [{name: HEADSCALE_POLICY_PATH, value: /files/none.hujson}]}}`, words: "no such file or directory"},
	{kind: "image", config: `{}`, spec: `{image: registry.example/nothing}`, words: "ErrImagePull"},
}

// badFiles are the files that these configs name.
var badFiles = map[string]string{
	"garbage":            "{garbage: [\n",
	"no-group.hujson":    `{"acls": [{"action": "accept", "src": ["group:none"], "dst": ["*:*"]}]}`,
	"no-tag.hujson":      `{"acls": [{"action": "accept", "src": ["tag:none"], "dst": ["*:*"]}]}`,
	"bad-address.hujson": `{"hosts": {"a": "300.1.1.1"}, "acls": []}`,
}

// startIssuers serves an identity provider, and what is none.
func startIssuers() string {
	var issuer *httptest.Server
	issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/garbage"):
			_, _ = fmt.Fprint(w, "<html>")
		case strings.HasPrefix(r.URL.Path, "/other"), strings.HasPrefix(r.URL.Path, "/.well-known"):
			_, _ = fmt.Fprintf(w, `{"issuer": %[1]q, "authorization_endpoint": %[1]q, "token_endpoint": %[1]q, "jwks_uri": %[1]q}`, issuer.URL)
		default:
			http.NotFound(w, r)
		}
	}))
	DeferCleanup(issuer.Close)
	return issuer.URL
}

// goodSpec is a spec that every release starts with, with the files of the bad ones.
func goodSpec(version string) map[string]any {
	return map[string]any{
		"version": version, "config": map[string]any{"server_url": "http://headscale.example.com"}, "preflight": "Always",
		"pod": map[string]any{
			"volumes":       []any{map[string]any{"name": "bad", "configMap": map[string]any{"name": "files"}}},
			"volume_mounts": []any{map[string]any{"name": "bad", "mountPath": "/files", "readOnly": true}},
		},
	}
}

// with is the good spec with the change.
func (b *badConfig) with(version, issuer string) map[string]any {
	GinkgoHelper()
	spec := goodSpec(version)
	merge := func(into any, text string) {
		change := map[string]any{}
		Expect(yaml.Unmarshal([]byte(strings.ReplaceAll(text, "ISSUER", issuer)), &change)).To(Succeed())
		section, ok := into.(map[string]any)
		Expect(ok).To(BeTrue())
		for key, value := range change {
			inner, nested := value.(map[string]any)
			if outer, there := section[key].(map[string]any); nested && there && key == "pod" {
				for name, entry := range inner {
					outer[name] = entry
				}
				continue
			}
			section[key] = value
		}
	}
	merge(spec["config"], b.config)
	if b.spec != "" {
		merge(spec, b.spec)
	}
	return spec
}

// setSpec replaces the spec.
func (s *server) setSpec(ctx context.Context, spec map[string]any) {
	GinkgoHelper()
	patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/spec", "value": spec}})
	Expect(err).NotTo(HaveOccurred())
	headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: s.key.Name}}
	Expect(admin.Patch(ctx, headscale, client.RawPatch(types.JSONPatchType, patch))).To(Succeed(), "%v", spec["config"])
}

// unchanged remembers what a running Headscale is made of, and returns a function that fails
// where any of it is another, or Headscale does not answer.
func (s *server) unchanged(ctx context.Context) (check func(context.Context, string)) {
	GinkgoHelper()
	read := func(ctx context.Context) (appsv1.StatefulSetSpec, map[string]string) {
		GinkgoHelper()
		set, config := &appsv1.StatefulSet{}, &corev1.ConfigMap{}
		Expect(admin.Get(ctx, s.key, set)).To(Succeed())
		Expect(admin.Get(ctx, s.key, config)).To(Succeed())
		return set.Spec, config.Data
	}
	spec, data := read(ctx)
	running := s.pod.Process(containerHeadscale)
	return func(ctx context.Context, what string) {
		GinkgoHelper()
		specNow, dataNow := read(ctx)
		Expect(specNow).To(Equal(spec), what)
		Expect(dataNow).To(Equal(data), what)
		Expect(s.pod.Process(containerHeadscale)).To(BeIdenticalTo(running), what)
		Expect(running.Running()).To(BeTrue(), what)
		Expect(s.healthy(ctx)).To(BeTrue(), what)
	}
}

// healthy reports whether Headscale answers its health check.
func (s *server) healthy(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.pod.Address(containerHeadscale, "http")+"/health", http.NoBody)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// awaitHeld waits until a preflight of the present generation has an outcome,
// and returns the condition Ready.
func (s *server) awaitHeld(ctx context.Context, outcome v1beta1.PreflightOutcome) *metav1.Condition {
	GinkgoHelper()
	var ready *metav1.Condition
	Eventually(func(g Gomega) {
		headscale := s.get(ctx)
		ready = meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionReady)
		g.Expect(ready).NotTo(BeNil())
		g.Expect(ready.ObservedGeneration).To(Equal(headscale.Generation))
		g.Expect(headscale.Status.Preflight).To(HaveValue(And(
			HaveField("Generation", headscale.Generation), HaveField("Outcome", outcome))), ready.Message)
	}).WithContext(ctx).Should(Succeed())
	Expect(ready.Status).To(Equal(metav1.ConditionFalse))
	return ready
}

// awaitNoPreflight waits until nothing is left of one.
func (s *server) awaitNoPreflight(ctx context.Context) {
	GinkgoHelper()
	name := client.ObjectKey{Namespace: s.key.Namespace, Name: s.key.Name + "-preflight"}
	for _, object := range []client.Object{&batchv1.Job{}, &corev1.ConfigMap{}} {
		Eventually(func() bool { return apierrors.IsNotFound(admin.Get(ctx, name, object)) }).WithContext(ctx).Should(BeTrue(), "%T", object)
	}
	Eventually(func(g Gomega) []corev1.Pod {
		pods := &corev1.PodList{}
		g.Expect(admin.List(ctx, pods, client.InNamespace(s.key.Namespace), client.MatchingLabels{resources.LabelHeadscale: s.key.Name})).To(Succeed())
		return pods.Items
	}).WithContext(ctx).Should(BeEmpty())
}

var _ = Describe("A change that Headscale refuses", func() {
	for _, version := range []string{"v0.26.1", "v0.27.1", "v0.28.0", "v0.29.3"} {
		It("never reaches the pod of "+version+" that runs", func(ctx SpecContext) {
			namespace := newNamespace(ctx)
			Expect(admin.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "files"}, Data: badFiles})).To(Succeed())
			hs := runPod(namespace, "headscale")
			manifest, err := yaml.Marshal(map[string]any{
				"apiVersion": v1beta1.GroupVersion.String(), "kind": v1beta1.Kind, "metadata": map[string]any{"name": "headscale"}, "spec": goodSpec(version),
			})
			Expect(err).NotTo(HaveOccurred())
			apply(ctx, namespace, string(manifest))
			hs.awaitReady(ctx)
			unchanged, issuer := hs.unchanged(ctx), startIssuers()
			tried, kinds := 0, map[string]bool{}
			for i := range badConfigs {
				bad := &badConfigs[i]
				words, refuses := bad.wordsOf(version)
				if !refuses {
					continue
				}
				what := fmt.Sprintf("%s of %s: %s %s", version, bad.kind, bad.config, bad.spec)
				hs.setSpec(ctx, bad.with(version, issuer))
				outcome := bad.outcome
				if outcome == "" {
					outcome = v1beta1.PreflightRefused
				}
				ready := hs.awaitHeld(ctx, outcome)
				Expect(ready.Message).To(ContainSubstring(words), what)
				Expect(ready.Message).To(ContainSubstring("pod headscale-0 keeps running generation 1"), what)
				unchanged(ctx, what)
				tried++
				kinds[bad.kind] = true
			}
			Expect(tried).To(BeNumerically(">=", 30))
			Expect(len(kinds)).To(BeNumerically(">=", 10))
			hs.awaitNoPreflight(ctx)

			By("going on with a good one")
			good := goodSpec(version)
			good["config"] = map[string]any{"server_url": "http://headscale.example.com", "log": map[string]any{"level": "debug"}}
			hs.setSpec(ctx, good)
			hs.awaitReady(ctx)
			Expect(hs.get(ctx).Status.Preflight).To(HaveValue(HaveField("Outcome", v1beta1.PreflightPassed)))
			hs.awaitNoPreflight(ctx)
		})
	}

	It("does not count for a restart of the pod for another reason", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		hs := &server{key: client.ObjectKey{Namespace: namespace, Name: "headscale"}}
		var stop func()
		hs.pod, stop = podrunner.StartInWorld(world, hs.key, GinkgoWriter)
		apply(ctx, namespace, shortestManifest)
		hs.awaitReady(ctx)
		hs.patch(ctx, `{"spec":{"config":{"dns":{"magic_dns":true,"base_domain":"tail.internal","override_local_dns":true}}}}`)
		hs.awaitHeld(ctx, v1beta1.PreflightRefused)
		By("draining the node: the pod is gone, and another one mounts what there is")
		stop()
		Eventually(func() bool {
			return meta.IsStatusConditionFalse(hs.get(ctx).Status.Conditions, v1beta1.ConditionAvailable)
		}).WithContext(ctx).Should(BeTrue())
		hs = runPod(namespace, "headscale")
		Eventually(hs.healthy).WithContext(ctx).Should(BeTrue())
		mounted, err := os.ReadFile(hs.pod.HostPath(containerHeadscale, "/etc/headscale/config.yaml"))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(mounted)).NotTo(ContainSubstring("tail.internal"))
		hs.awaitHeld(ctx, v1beta1.PreflightRefused)
		Expect(hs.get(ctx).Status.AppliedGeneration).To(BeEquivalentTo(1))
		By("deleting the Headscale, of which nothing stays")
		hs.patch(ctx, `{"spec":{"config":{"dns":null,"log":{"level":"debug"}}}}`)
		Expect(admin.Delete(ctx, hs.get(ctx))).To(Succeed())
		job := &batchv1.Job{}
		if err := admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "headscale-preflight"}, job); err == nil {
			Expect(job.OwnerReferences).To(ConsistOf(HaveField("Kind", v1beta1.Kind)), "the garbage collector deletes it")
		}
	})

	It("is judged by the release that an upgrade goes to, also of what the operator does not know", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, strings.Replace(strings.Replace(shortestManifest, "v0.29.3", "v0.28.0", 1), "config: {", "config: {randomize_client_port: true, ", 1))
		hs.awaitReady(ctx)
		Expect(hs.get(ctx).Status.Version).To(Equal("v0.28.0"))
		unchanged := hs.unchanged(ctx)
		replaceOperator(ctx, buildWithout(ctx, `path: "randomize_client_port"`))
		hs.patch(ctx, `{"spec":{"version":"v0.29.3"}}`)
		ready := hs.awaitHeld(ctx, v1beta1.PreflightRefused)
		Expect(ready.Message).To(And(ContainSubstring("Headscale v0.29.3 does not start with generation 2"), ContainSubstring("randomize_client_port")))
		unchanged(ctx, "an upgrade with a removed key")
		hs.awaitNoPreflight(ctx)
		hs.patch(ctx, `{"spec":{"config":{"randomize_client_port":null}}}`)
		hs.awaitReady(ctx)
		Expect(hs.get(ctx).Status.Version).To(Equal("v0.29.3"))
	})
})

// wordsOf are those of a release, and whether it refuses the config.
func (b *badConfig) wordsOf(version string) (string, bool) {
	if b.by == nil {
		return b.words, true
	}
	words, refuses := b.by[version]
	return words, refuses
}

// buildWithout builds an operator that does not know of a removed key.
func buildWithout(ctx context.Context, entry string) string {
	GinkgoHelper()
	source := filepath.Join(root, "internal", "resources", "versions.go")
	text, err := os.ReadFile(source)
	Expect(err).NotTo(HaveOccurred())
	var kept []string
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, entry) {
			kept = append(kept, line)
		}
	}
	Expect(strings.Join(kept, "")).NotTo(Equal(string(text)))
	dir := GinkgoT().TempDir()
	changed, overlay, program := filepath.Join(dir, "versions.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "manager")
	Expect(os.WriteFile(changed, []byte(strings.Join(kept, "")), 0o600)).To(Succeed())
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(overlay, replace, 0o600)).To(Succeed())
	build := exec.CommandContext(ctx, "go", "build", "-overlay="+overlay, "-o", program, "./cmd")
	build.Dir = root
	output, err := build.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(output))
	return program
}

// replaceOperator runs another operator in place of the one of all specs, for one spec.
func replaceOperator(ctx context.Context, program string) {
	GinkgoHelper()
	run := func(ctx context.Context, program string) {
		GinkgoHelper()
		Expect(world.Operator.Stop()).To(Succeed())
		var err error
		world.Operator, err = world.RunOperator(ctx, program, unelected)
		Expect(err).NotTo(HaveOccurred())
	}
	run(ctx, program)
	DeferCleanup(func(ctx SpecContext) { run(ctx, binaries.Operator) })
}
