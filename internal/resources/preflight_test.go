package resources

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// preflightOf is the preflight of a Headscale with a spec.
func preflightOf(g Gomega, t testing.TB, spec string, options Options) *Preflight {
	t.Helper()
	headscale := headscaleOf(t, spec)
	objects, err := Build(headscale, options)
	g.Expect(err).NotTo(HaveOccurred())
	preflight, err := NewPreflight(headscale, objects, Attempt{Number: 2})
	g.Expect(err).NotTo(HaveOccurred())
	return preflight
}

// TestGoldenPreflight shows the objects of some preflights in full.
func TestGoldenPreflight(t *testing.T) {
	for name, spec := range map[string]string{"preflight": withReferences, "preflight-additions": withAdditions, "preflight-backup": withDirectory} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			preflight := preflightOf(g, t, spec, backedUp(v1beta1.BackupStatus{Incarnation: "0000-1111-1"}))
			config, err := yaml.Marshal(preflight.ConfigMap)
			g.Expect(err).NotTo(HaveOccurred())
			job, err := yaml.Marshal(preflight.Job)
			g.Expect(err).NotTo(HaveOccurred())
			got := string(config) + "---\n" + string(job)
			file := filepath.Join("testdata", name+".yaml")
			if *update {
				g.Expect(os.WriteFile(file, []byte(got), 0o600)).To(Succeed())
			}
			want, err := os.ReadFile(file)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got).To(Equal(string(want)), "run with -update if this is as it should be")
		})
	}
}

func TestPreflightReachesNothing(t *testing.T) {
	for name, spec := range map[string]string{
		"SQLite":     shortSpec(""),
		"additions":  withAdditions,
		"references": withReferences,
		"a backup":   withDirectory,
		"PostgreSQL": `
version: v0.29.3
config: {server_url: "http://headscale.example.com", database: {type: postgres, postgres: {host: db, port: 5432, name: hs, user: hs}}}
secrets: {database_password: {name: db, key: password}}
`,
		"another place of the data": `
version: v0.29.3
config: {server_url: "http://headscale.example.com", database: {sqlite: {path: /data/hs.db}}}
`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			preflight := preflightOf(g, t, spec, operatorOptions)
			pod := preflight.Job.Spec.Template
			g.Expect(*pod.Spec.AutomountServiceAccountToken).To(BeFalse())
			g.Expect(*pod.Spec.RestartPolicy).To(Equal(corev1.RestartPolicyNever))
			g.Expect(pod.Spec.Containers).To(HaveLen(1))

			volumes := map[string]corev1ac.VolumeApplyConfiguration{}
			for _, volume := range pod.Spec.Volumes {
				volumes[*volume.Name] = volume
			}
			g.Expect(volumes).NotTo(HaveKey(volumeToken))
			g.Expect(*volumes[volumeConfig].ConfigMap.Name).To(Equal("headscale-preflight"))
			for _, volume := range []string{volumeData, volumeSocket, volumeTmp} {
				g.Expect(volumes[volume].EmptyDir).NotTo(BeNil(), volume)
				g.Expect(volumes[volume].EmptyDir.SizeLimit).NotTo(BeNil(), volume)
			}
			env := map[string]string{}
			for _, variable := range pod.Spec.Containers[0].Env {
				g.Expect(env).NotTo(HaveKey(*variable.Name), "a variable has one value")
				env[*variable.Name] = ""
				if variable.Value != nil {
					env[*variable.Name] = *variable.Value
				}
			}
			g.Expect(env).To(HaveKeyWithValue("HEADSCALE_DATABASE_TYPE", "sqlite"))
			inData := false
			for _, m := range pod.Spec.Containers[0].VolumeMounts {
				inData = inData || *m.Name == volumeData && strings.HasPrefix(env["HEADSCALE_DATABASE_SQLITE_PATH"], *m.MountPath+"/")
			}
			g.Expect(inData).To(BeTrue(), "the database is on the empty volume")

			headscale := headscaleOf(t, spec)
			objects, err := Build(headscale, operatorOptions)
			g.Expect(err).NotTo(HaveOccurred())
			for _, selector := range []map[string]string{
				objects.Service.Spec.Selector, objects.MetricsService.Spec.Selector, objects.StatefulSet.Spec.Selector.MatchLabels,
			} {
				missing := 0
				for key, value := range selector {
					if pod.Labels[key] != value {
						missing++
					}
				}
				g.Expect(missing).NotTo(BeZero(), "the selector %v", selector)
			}
			g.Expect(InstanceOf(pod.Labels)).To(Equal("headscale"), "its end is noticed")
			g.Expect(pod.Spec.ReadinessGates).NotTo(BeEmpty(), "it is never ready")
		})
	}
}

// Litestream reads the config that it would have, which the pod that runs does not have yet, and
// nothing of a database.
func TestPreflightOfABackup(t *testing.T) {
	g := NewWithT(t)
	options := backedUp(v1beta1.BackupStatus{Incarnation: "a-1"})
	headscale := headscaleOf(t, withDirectory)
	objects, err := Build(headscale, options)
	g.Expect(err).NotTo(HaveOccurred())
	preflight, err := NewPreflight(headscale, objects, Attempt{Number: 1})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(preflight.ConfigMap.Data).To(And(HaveLen(2), HaveKeyWithValue("litestream.yml", objects.BackupConfigMap.Data["litestream.yml"])))
	g.Expect(objects.PreflightSize()).To(Equal(len(preflight.ConfigMap.Data["litestream.yml"]) + len(preflight.ConfigMap.Data["config.yaml"])))

	pod := preflight.Job.Spec.Template.Spec
	g.Expect(pod.InitContainers).To(HaveLen(1))
	reads := pod.InitContainers[0]
	var replicates corev1ac.ContainerApplyConfiguration
	for _, container := range objects.StatefulSet.Spec.Template.Spec.InitContainers {
		if *container.Name == ContainerBackup {
			replicates = container
		}
	}
	g.Expect(reads.Args).To(Equal([]string{"databases", "-config=/etc/litestream/litestream.yml"}))
	g.Expect(reads.RestartPolicy).To(BeNil(), "it ends")
	g.Expect(reads.Env).To(ConsistOf(HaveField("Value", HaveValue(Equal("preflight")))), "no path that a backup is at")
	g.Expect([]any{reads.Image, reads.EnvFrom, reads.Resources, reads.SecurityContext, reads.Command}).To(Equal(
		[]any{replicates.Image, replicates.EnvFrom, replicates.Resources, replicates.SecurityContext, replicates.Command}))
	g.Expect(reads.VolumeMounts).To(HaveLen(len(replicates.VolumeMounts)))

	volumes := map[string]corev1ac.VolumeApplyConfiguration{}
	for _, volume := range pod.Volumes {
		volumes[*volume.Name] = volume
	}
	g.Expect(volumes).NotTo(Or(HaveKey(volumeToken), HaveKey(volumeIdentity), HaveKey(volumeIdentitySecret)))
	for _, m := range reads.VolumeMounts {
		g.Expect(volumes).To(HaveKey(*m.Name))
		if volumes[*m.Name].PersistentVolumeClaim != nil {
			g.Expect(*m.ReadOnly).To(BeTrue(), "the replica is left alone")
		}
	}
	g.Expect(*volumes[volumeBackup].ConfigMap.Name).To(Equal("headscale-preflight"))
	g.Expect(volumes[volumeBackup].ConfigMap.Items).To(ConsistOf(HaveField("Key", HaveValue(Equal("litestream.yml")))))

	options.Backup.Incarnation = "a-2"
	g.Expect(preflightOf(g, t, withDirectory, options).Digest).To(Equal(preflight.Digest), "another incarnation is no other change")
	g.Expect(preflightOf(g, t, strings.Replace(withDirectory, "backups/headscale}", "backups/other}", 1), options).Digest).NotTo(Equal(preflight.Digest))
}

// The policy of the database is read from a file, which the database of a preflight does not have.
func TestPreflightOfAPolicy(t *testing.T) {
	g := NewWithT(t)
	headscale := headscaleOf(t, shortSpec(""))
	objects, err := Build(headscale, operatorOptions)
	g.Expect(err).NotTo(HaveOccurred())
	without, err := NewPreflight(headscale, objects, Attempt{Number: 1})
	g.Expect(err).NotTo(HaveOccurred())
	one, err := NewPreflight(headscale, objects, Attempt{Number: 1, Policy: "one"})
	g.Expect(err).NotTo(HaveOccurred())
	other, err := NewPreflight(headscale, objects, Attempt{Number: 1, Policy: "other"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(map[string]bool{without.Digest: true, one.Digest: true, other.Digest: true}).To(HaveLen(3), "each is another change")

	g.Expect(without.ConfigMap.Data).To(HaveLen(1))
	g.Expect(one.ConfigMap.Data).To(HaveKeyWithValue("policy.hujson", "one"))
	pod := one.Job.Spec.Template.Spec
	env := map[string]string{}
	for _, variable := range pod.Containers[0].Env {
		if variable.Value != nil {
			env[*variable.Name] = *variable.Value
		}
	}
	g.Expect(env).To(And(HaveKeyWithValue("HEADSCALE_POLICY_MODE", "file"), HaveKeyWithValue("HEADSCALE_POLICY_PATH", "/etc/headscale/policy.hujson")))
	for i := range pod.Volumes {
		if *pod.Volumes[i].Name == volumeConfig {
			g.Expect(pod.Volumes[i].ConfigMap.Items).To(ContainElement(And(HaveField("Key", HaveValue(Equal("policy.hujson"))), HaveField("Path", HaveValue(Equal("policy.hujson"))))))
		}
	}
}

func TestPolicyInDatabase(t *testing.T) {
	const inDatabase = ", policy: {mode: database}"
	env := func(fields string) string { return "pod: {env: [" + fields + "]}" }
	for name, test := range map[string]struct {
		config, fields string
		want           bool
	}{
		"nothing":                        {},
		"the database":                   {config: inDatabase, want: true},
		"a file":                         {config: ", policy: {mode: file, path: /p}"},
		"a section that is none":         {config: ", policy: none"},
		"a referenced file":              {fields: "files: {policy: {config_map: {name: a, key: b}}}"},
		"a variable for a file":          {config: inDatabase, fields: env("{name: HEADSCALE_POLICY_MODE, value: file}")},
		"a variable for the database":    {fields: env("{name: HEADSCALE_POLICY_MODE, value: database}"), want: true},
		"a variable without a value":     {config: inDatabase, fields: env("{name: HEADSCALE_POLICY_MODE, value: ''}"), want: true},
		"a variable from somewhere else": {config: inDatabase, fields: env("{name: HEADSCALE_POLICY_MODE, valueFrom: {secretKeyRef: {name: a, key: b}}}")},
		"another variable":               {fields: env("{name: HEADSCALE_POLICY_PATH, value: database}")},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			spec := shortSpec(test.config)
			if test.fields != "" {
				spec = strings.Replace(spec, "config:", test.fields+", config:", 1)
			}
			objects, err := Build(headscaleOf(t, spec), operatorOptions)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(objects.PolicyInDatabase).To(Equal(test.want))
		})
	}
}

func TestPreflightOfUsersVolumes(t *testing.T) {
	g := NewWithT(t)
	pod := preflightOf(g, t, `
version: v0.29.3
config: {server_url: "http://headscale.example.com"}
pod:
  env: [{name: HEADSCALE_DEBUG_TAILSQL_ENABLED, value: "true"}, {name: HEADSCALE_LOG_LEVEL, value: debug}]
  volumes:
  - {name: maps, persistentVolumeClaim: {claimName: maps}}
  - {name: mixed, projected: {sources: [{serviceAccountToken: {audience: vault, path: token}}, {secret: {name: a}}]}}
  volume_mounts: [{name: maps, mountPath: /maps}, {name: mixed, mountPath: /mixed}]
`, operatorOptions).Job.Spec.Template
	for _, m := range pod.Spec.Containers[0].VolumeMounts {
		if *m.Name == "maps" {
			g.Expect(*m.ReadOnly).To(BeTrue(), "what others may be writing is read")
		}
	}
	for _, volume := range pod.Spec.Volumes {
		if *volume.Name == "maps" {
			g.Expect(*volume.PersistentVolumeClaim.ReadOnly).To(BeTrue(), "and attached for no more than that")
		}
		if *volume.Name == "mixed" {
			g.Expect(volume.Projected.Sources).To(HaveLen(1), "no token")
		}
	}
	names := []string{}
	for _, variable := range pod.Spec.Containers[0].Env {
		names = append(names, *variable.Name)
	}
	g.Expect(names).To(ConsistOf("HEADSCALE_LOG_LEVEL", "HEADSCALE_DATABASE_TYPE", "HEADSCALE_DATABASE_SQLITE_PATH"))
}

func TestPreflightPrefersTheNode(t *testing.T) {
	g := NewWithT(t)
	headscale := headscaleOf(t, shortSpec(""))
	objects, err := Build(headscale, operatorOptions)
	g.Expect(err).NotTo(HaveOccurred())
	preflight, err := NewPreflight(headscale, objects, Attempt{Number: 1, Node: "a"})
	g.Expect(err).NotTo(HaveOccurred())
	preferred := preflight.Job.Spec.Template.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	g.Expect(preferred).To(HaveLen(1))
	g.Expect(preferred[0].Preference.MatchFields).To(HaveExactElements(And(HaveField("Key", HaveValue(Equal("metadata.name"))), HaveField("Values", HaveExactElements("a")))))
	g.Expect(objects.StatefulSet.Spec.Template.Spec.Affinity).To(BeNil(), "the pod of the Headscale may run anywhere")
}

func TestPreflightDigest(t *testing.T) {
	g := NewWithT(t)
	spec := shortSpec("")
	first := preflightOf(g, t, spec, operatorOptions)
	for _, other := range []struct {
		spec    string
		options Options
	}{
		{shortSpec(", log: {level: debug}"), operatorOptions},
		{strings.Replace(spec, "v0.29.3", "v0.29.2", 1), operatorOptions},
		{strings.Replace(spec, "config:", "image: elsewhere/headscale, config:", 1), operatorOptions},
		{strings.Replace(spec, "config:", "pod: {env: [{name: A, value: b}]}, config:", 1), operatorOptions},
		{spec, Options{ManagerImage: operatorOptions.ManagerImage, References: "other"}},
	} {
		g.Expect(preflightOf(g, t, other.spec, other.options).Digest).NotTo(Equal(first.Digest), other.spec)
	}
	g.Expect(preflightOf(g, t, spec, operatorOptions).Digest).To(Equal(first.Digest))
	headscale := headscaleOf(t, spec)
	objects, err := Build(headscale, operatorOptions)
	g.Expect(err).NotTo(HaveOccurred())
	elsewhere, err := NewPreflight(headscale, objects, Attempt{Number: 3, Node: "other"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(elsewhere.Digest).To(Equal(first.Digest), "where it is run does not matter")
	corrected, err := NewPreflight(headscale, objects, Attempt{Number: 2, LiveReferences: "other"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(corrected.Digest).NotTo(Equal(first.Digest), "a file that is read again is checked again")
	g.Expect(preflightOf(g, t, spec, Options{ManagerImage: "other:v2"}).Digest).To(Equal(first.Digest), "the API Key Manager is not part of a preflight")
}

// podOf is the pod of a Headscale with a spec.
func podOf(g Gomega, t testing.TB, spec string, options Options) *corev1.PodTemplateSpec {
	t.Helper()
	objects, err := Build(headscaleOf(t, spec), options)
	g.Expect(err).NotTo(HaveOccurred())
	pod := &corev1.PodTemplateSpec{}
	g.Expect(convert("pod", objects.StatefulSet.Spec.Template, pod)).To(Succeed())
	return pod
}

func TestSamePodWithABackup(t *testing.T) {
	g := NewWithT(t)
	options := backedUp(v1beta1.BackupStatus{Incarnation: "a-1"})
	with := func(old, changed string) *corev1.PodTemplateSpec {
		g.Expect(withDirectory).To(ContainSubstring(old))
		return podOf(g, t, strings.Replace(withDirectory, old, changed, 1), options)
	}
	first, none := podOf(g, t, withDirectory, options), with(withDirectory[strings.Index(withDirectory, "backup:"):strings.Index(withDirectory, "pod:")], "")
	g.Expect(SamePod(first, first)).To(BeTrue())
	g.Expect(SamePod(none, first)).To(BeFalse(), "a backup that is turned on")
	g.Expect(SamePod(first, none)).To(BeTrue(), "and off")
	for _, other := range []*corev1.PodTemplateSpec{
		with("backups/headscale}", "backups/headscale, sync-interval: 5s}"), with("replica:", "image: elsewhere/litestream:1\n  replica:"),
		with("name: backup-credentials", "name: others"), with("name: key,", "name: id,"), with("{name: hosts, key: hosts}", "{name: hosts, key: other}"),
	} {
		g.Expect(SamePod(first, other)).To(BeFalse())
	}
	changed := options
	changed.References = "other"
	g.Expect(SamePod(first, podOf(g, t, withDirectory, changed))).To(BeFalse(), "other data of the credentials")
	changed = options
	changed.Backup.Incarnation, changed.ManagerImage = "a-2", "other:v2"
	g.Expect(SamePod(first, podOf(g, t, withDirectory, changed))).To(BeTrue(), "an update of the operator alone")
	g.Expect(SamePod(first, with("memory: 64Mi", "memory: 65Mi"))).To(BeTrue())
}

func TestSamePod(t *testing.T) {
	g := NewWithT(t)
	podOf := func(spec string, options Options) *corev1.PodTemplateSpec { return podOf(g, t, spec, options) }
	spec := shortSpec("")
	with := func(fields string) string { return strings.Replace(spec, "config:", fields+", config:", 1) }
	first := podOf(spec, operatorOptions)
	for _, same := range []string{
		with("pod: {resources: {requests: {cpu: 1}}}"), with("pod: {labels: {a: b}, annotations: {c: d}}"),
		with("api_key: {secret_name: other}"), with("api_key: {auto_manage: false}"), with("pod: {tolerations: [{operator: Exists}]}"),
	} {
		g.Expect(SamePod(first, podOf(same, operatorOptions))).To(BeTrue(), same)
	}
	g.Expect(SamePod(first, podOf(spec, Options{ManagerImage: "other:v2"}))).To(BeTrue())
	pulled := with("image_pull_secrets: [{name: registry}]")
	g.Expect(SamePod(podOf(pulled, operatorOptions), podOf(pulled, Options{ManagerImage: "other:v2"}))).To(BeTrue(), "an update of the operator alone")
	for _, other := range []string{
		shortSpec(", log: {level: debug}"), strings.Replace(spec, "v0.29.3", "v0.29.2", 1), with("image: elsewhere/headscale"),
		with("pod: {env: [{name: A, value: b}]}"), with("pod: {security_context: {}}"),
		with("pod: {volumes: [{name: a, emptyDir: {}}], volume_mounts: [{name: a, mountPath: /a}]}"),
		with("secrets: {noise_private_key: {name: a, key: b}}"), with("image_pull_secrets: [{name: registry}]"),
	} {
		g.Expect(SamePod(first, podOf(other, operatorOptions))).To(BeFalse(), other)
	}
	g.Expect(SamePod(first, podOf(spec, Options{ManagerImage: operatorOptions.ManagerImage, References: "other"}))).To(BeFalse())
}

func TestChildNames(t *testing.T) {
	g := NewWithT(t)
	for name, child := range map[string]bool{
		"a": true, "a-metrics": true, "a-preflight": true, "a-0": false, "b": false, "a-metrics-metrics": false,
	} {
		g.Expect(IsChildName("a", name)).To(Equal(child), name)
	}
	g.Expect(HeadscaleOfPreflight(map[string]string{LabelHeadscale: "a"})).To(BeEmpty())
	g.Expect(HeadscaleOfPreflight(PreflightLabels(&v1beta1.Headscale{}))).To(BeEmpty())
}
