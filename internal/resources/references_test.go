package resources

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// withReferences is a spec that refers to everything that can be referred to.
const withReferences = `
version: v0.29.3
config:
  server_url: https://headscale.example.com
  database: {type: postgres, postgres: {host: db, user: headscale, name: headscale}}
  oidc: {issuer: "https://sso.example.com", client_id: headscale}
secrets:
  database_password: {name: db, key: password}
  oidc_client_secret: {name: sso, key: client-secret}
  tls: {name: headscale-tls}
  noise_private_key: {name: keys, key: noise}
  derp_private_key: {name: keys, key: derp}
files:
  policy: {config_map: {name: policy, key: policy.hujson}}
  extra_dns_records: {secret: {name: records, key: records.json}}
`

func TestReferences(t *testing.T) {
	g := NewWithT(t)
	g.Expect(References(headscaleOf(t, withReferences))).To(Equal([]Reference{
		{"secrets.database_password", KindSecret, "db", []string{"password"}, false},
		{"secrets.tls", KindSecret, "headscale-tls", []string{"tls.crt", "tls.key"}, false},
		{"secrets.oidc_client_secret", KindSecret, "sso", []string{"client-secret"}, false},
		{"secrets.noise_private_key", KindSecret, "keys", []string{"noise"}, false},
		{"secrets.derp_private_key", KindSecret, "keys", []string{"derp"}, false},
		{"files.policy", KindConfigMap, "policy", []string{"policy.hujson"}, false},
		{"files.extra_dns_records", KindSecret, "records", []string{"records.json"}, false},
	}))
	g.Expect(References(headscaleOf(t, `version: v0.29.3
config: {server_url: "http://headscale.example.com"}
pod:
  env:
  - {name: A, value: a}
  - {name: B, valueFrom: {secretKeyRef: {name: db, key: b}}}
  - {name: C, valueFrom: {configMapKeyRef: {name: db, key: c, optional: true}}}
  - {name: D, valueFrom: {secretKeyRef: {name: db, key: d}}}
  - {name: E, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  volumes:
  - {name: a, secret: {secretName: whole}}
  - {name: b, configMap: {name: part, items: [{key: x, path: y}], optional: true}}
  - {name: c, projected: {sources: [{secret: {name: one}}, {configMap: {name: two}}, {downwardAPI: {}}]}}
  - {name: d, emptyDir: {}}
`))).To(Equal([]Reference{
		{"pod.env", KindSecret, "db", []string{"b", "d"}, false},
		{"pod.env", KindConfigMap, "db", []string{"c"}, true},
		{"pod.volumes", KindSecret, "whole", nil, false},
		{"pod.volumes", KindConfigMap, "part", []string{"x"}, true},
		{"pod.volumes", KindSecret, "one", nil, false},
		{"pod.volumes", KindConfigMap, "two", nil, false},
	}))
	g.Expect(References(headscaleOf(t, shortSpec("")))).To(BeEmpty())
}

// TestManyReferences has volumes that hold the same Secret many times, and many different ones.
func TestManyReferences(t *testing.T) {
	for name, test := range map[string]struct {
		volumes, objects int
		refused          bool
	}{
		"one Secret":          {100, 1, false},
		"as many as allowed":  {MaxReferences, MaxReferences, false},
		"more than the limit": {MaxReferences + 1, MaxReferences + 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			headscale := headscaleOf(t, shortSpec(""))
			for i := range test.volumes {
				headscale.Spec.Pod.Volumes = append(headscale.Spec.Pod.Volumes, v1beta1.PodVolume{
					Name: fmt.Sprint(i), Secret: &corev1.SecretVolumeSource{SecretName: fmt.Sprint(i % test.objects)},
				})
			}
			all := References(headscale)
			g.Expect(all).To(HaveLen(test.objects))
			if err := CheckReferences(all); test.refused {
				g.Expect(err).To(MatchError(ContainSubstring("spec.pod.volumes names more than 64 Secrets and ConfigMaps: name fewer")))
			} else {
				g.Expect(err).NotTo(HaveOccurred())
			}
		})
	}
}

func TestReferencesAreInTheConfig(t *testing.T) {
	g := NewWithT(t)
	objects, err := Build(headscaleOf(t, withReferences), Options{ManagerImage: "m", References: "digest"})
	g.Expect(err).NotTo(HaveOccurred())
	built := map[string]any{}
	g.Expect(yaml.Unmarshal([]byte(objects.ConfigMap.Data[ConfigFile]), &built)).To(Succeed())
	g.Expect(built).To(And(
		HaveKeyWithValue("tls_cert_path", "/etc/headscale-files/tls.crt"),
		HaveKeyWithValue("tls_key_path", "/etc/headscale-files/tls.key"),
		HaveKeyWithValue("noise", HaveKeyWithValue("private_key_path", "/etc/headscale-files/noise_private.key")),
		HaveKeyWithValue("oidc", HaveKeyWithValue("client_secret_path", "/etc/headscale-files/oidc_client_secret")),
		HaveKeyWithValue("policy", Equal(map[string]any{"mode": "file", "path": "/etc/headscale-files/policy.hujson"})),
		HaveKeyWithValue("dns", HaveKeyWithValue("extra_records_path", "/etc/headscale-files/extra_records.json")),
		HaveKeyWithValue("derp", HaveKeyWithValue("server", HaveKeyWithValue("private_key_path", "/etc/headscale-files/derp_server_private.key"))),
	))
	pod := objects.StatefulSet.Spec.Template
	g.Expect(pod.Annotations).To(HaveKeyWithValue(AnnotationReferences, "digest"))
	g.Expect(pod.Spec.Containers[1].VolumeMounts).NotTo(ContainElement(HaveField("Name", HaveValue(Equal(volumeFiles)))), "the sidecar must not see them")
	g.Expect(*pod.Spec.Containers[0].ReadinessProbe.HTTPGet.Scheme).To(BeEquivalentTo("HTTPS"))
	g.Expect(objects.Warnings).To(BeEmpty())
}

func TestUnusableReferences(t *testing.T) {
	for name, test := range map[string]struct{ config, rest, sentence string }{
		"a certificate twice":            {`, tls_cert_path: /c`, `secrets: {tls: {name: t}}`, "spec.config.tls_cert_path must be left out where spec.secrets.tls is set, which gives it"},
		"a certificate of Let's Encrypt": {`, tls_letsencrypt_hostname: h`, `secrets: {tls: {name: t}}`, "spec.config.tls_letsencrypt_hostname must be left out where spec.secrets.tls is set"},
		"a password for SQLite":          {``, `secrets: {database_password: {name: s, key: k}}`, "spec.secrets.database_password applies to PostgreSQL only: set spec.config.database.type to postgres, or leave it out"},
		"a password twice":               {`, database: {type: postgres, postgres: {pass: p}}`, `secrets: {database_password: {name: s, key: k}}`, "spec.config.database.postgres.pass must be left out where spec.secrets.database_password is set"},
		"a client secret without OIDC":   {``, `secrets: {oidc_client_secret: {name: s, key: k}}`, "spec.config.oidc.issuer must be set where spec.secrets.oidc_client_secret is"},
		"a client secret twice":          {`, oidc: {issuer: i, client_secret: s}`, `secrets: {oidc_client_secret: {name: s, key: k}}`, "spec.config.oidc.client_secret must be left out where spec.secrets.oidc_client_secret is set"},
		"a Noise key twice":              {`, noise: {private_key_path: /p}`, `secrets: {noise_private_key: {name: s, key: k}}`, "spec.config.noise.private_key_path must be left out where spec.secrets.noise_private_key is set, which gives it"},
		"a relay's key without a relay":  {`, derp: {urls: [u]}`, `secrets: {derp_private_key: {name: s, key: k}}`, "spec.secrets.derp_private_key applies to Headscale's embedded DERP server only"},
		"a policy in the database":       {`, policy: {mode: database}`, `files: {policy: {secret: {name: s, key: k}}}`, "spec.config.policy.mode must be file, or left out, where spec.files.policy is set"},
		"records twice":                  {`, dns: {extra_records: [{name: n}]}`, `files: {extra_dns_records: {secret: {name: s, key: k}}}`, "spec.config.dns.extra_records must be left out where spec.files.extra_dns_records is set"},
		"a section that is none":         {`, policy: none`, `files: {policy: {secret: {name: s, key: k}}}`, "spec.config.policy must be a section with keys of its own"},
		"data where the files are":       {`, database: {sqlite: {path: /etc/headscale-files/db}}`, `{}`, "spec.config.database.sqlite.path must not be in /etc/headscale-files"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := headscaleOf(t, shortSpec(test.config))
			NewWithT(t).Expect(yaml.Unmarshal([]byte(test.rest), &spec.Spec)).To(Succeed())
			_, err := Build(spec, operatorOptions)
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(test.sentence)))
		})
	}
}

func TestSecretsInPlainText(t *testing.T) {
	g := NewWithT(t)
	objects, err := Build(headscaleOf(t, shortSpec(", database: {type: postgres, postgres: {pass: p}}, oidc: {client_secret: s}")), operatorOptions)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(objects.Warnings).To(HaveExactElements(
		"spec.config.database.postgres.pass is in plain text in the ConfigMap: put it into a Secret and name that in spec.secrets.database_password",
		"spec.config.oidc.client_secret is in plain text in the ConfigMap: put it into a Secret and name that in spec.secrets.oidc_client_secret",
	))
}
