package chart_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"infrado.cloud/headscale-operator/test/pages"
)

// digest is one that an image could have.
const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// accepted are values that must give what an API server accepts.
var accepted = map[string]string{
	"nothing":             "",
	"other names":         `{nameOverride: hs, fullnameOverride: a-name-of-more-than-forty-characters-in-all}`,
	"a parent's switch":   `{enabled: true, global: {a: b}}`,
	"no second operator":  `{leaderElection: {enabled: false}}`,
	"several replicas":    `{replicas: 3, podDisruptionBudget: {enabled: true, maxUnavailable: 50%}, topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}]}`,
	"some namespaces":     `{watchNamespaces: [team-a, team-b]}`,
	"without CRDs":        `{crds: {enabled: false}}`,
	"CRDs that go":        `{crds: {keep: false}}`,
	"without roles":       `{rbac: {create: false}, serviceAccount: {create: false, name: mine}}`,
	"without aggregation": `{rbac: {aggregate: false}}`,
	"admission policies":  `{admissionPolicy: {enabled: true}}`,
	"all of the metrics":  `{metrics: {port: 9100, service: {annotations: {a: b}}, serviceMonitor: {enabled: true, labels: {release: prom}, interval: 30s}, podMonitor: {enabled: true, labels: {release: prom}, interval: 1m}, certificate: {secretName: cert}, token: {secretName: token, key: t}}}`,
	"plain metrics":       `{metrics: {secure: false, port: 8080, serviceMonitor: {enabled: true}, podMonitor: {enabled: true}}}`,
	"all of monitoring":   `{metrics: {headscales: {serviceMonitor: {enabled: true, labels: {release: prom}, interval: 30s}, podMonitor: {enabled: true, labels: {release: prom}, interval: 1m}}, prometheusRule: {enabled: true, labels: {release: prom}}, dashboard: {enabled: true, labels: {mine: "1"}, annotations: {grafana_folder: VPN}}}}`,
	"monitored in parts":  `{watchNamespaces: [team-a, team-b], fullnameOverride: hs, metrics: {enabled: false, headscales: {podMonitor: {enabled: true}}, prometheusRule: {enabled: true}}}`,
	"no metrics":          `{metrics: {enabled: false}, networkPolicy: {enabled: true}}`,
	"a network policy":    `{networkPolicy: {enabled: true, metricsFrom: [{namespaceSelector: {matchLabels: {a: b}}}], apiServer: {to: [{ipBlock: {cidr: 10.0.0.1/32}}], ports: [6443]}}}`,
	"network policies":    `{networkPolicy: {headscales: {enabled: true, namespaces: [team-a, team-b], metricsFrom: [{namespaceSelector: {matchLabels: {a: b}}}], adminFrom: [{podSelector: {matchLabels: {a: b}}}]}}}`,
	"digests":             `{image: {digest: "` + digest + `"}, managerImage: {digest: "` + digest + `", tag: ignored}}`,
	"logs and flags":      `{log: {format: json, level: debug}, extraArgs: ["--pprof-bind-address=127.0.0.1:6060"], extraEnv: [{name: GOMEMLIMIT, value: 200MiB}]}`,
	"a choice of nodes":   `{nodeSelector: {a: b}, tolerations: [{operator: Exists}], priorityClassName: system-cluster-critical, affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}}`,
	"marks on the pod":    `{podAnnotations: {a: b}, podLabels: {c: d, app.kubernetes.io/part-of: e}, imagePullSecrets: [{name: registry}], serviceAccount: {annotations: {e: f}}}`,
	"everything at once, with the longest names": everything,
	"more objects": `
extraObjects:
- apiVersion: headscale.infrado.cloud/v1beta1
  kind: Headscale
  metadata: {name: headscale, namespace: team-a}
  spec: {version: v0.29.3, config: {server_url: "http://headscale.team-a.svc:8080"}}
- |
  apiVersion: v1
  kind: ConfigMap
  metadata: {name: "{{ .Release.Name }}-more", namespace: team-a}
`,
}

// everything are all options at once, with names as long as they can be.
const everything = `
nameOverride: a-name-override-of-sixty-three-characters-which-is-the-longest1
fullnameOverride: a-fullname-override-of-sixty-three-characters-which-is-longest1
image: {repository: registry.example.com/operator, tag: v1, digest: "` + digest + `", pullPolicy: Always}
managerImage: {repository: registry.example.com/apikey-manager, tag: v1, digest: "` + digest + `"}
imagePullSecrets: [{name: registry}]
replicas: 3
leaderElection: {enabled: true}
watchNamespaces: [team-a, team-b]
serviceAccount: {annotations: {a: b}}
log: {format: json, level: debug}
extraArgs: ["--pprof-bind-address=127.0.0.1:6060"]
extraEnv: [{name: GOMEMLIMIT, value: 200MiB}]
resources: {requests: {cpu: 20m, memory: 128Mi}, limits: {memory: 512Mi}}
podAnnotations: {a: b, kubectl.kubernetes.io/default-container: manager}
podLabels: {c: d}
priorityClassName: system-cluster-critical
nodeSelector: {a: b}
tolerations: [{operator: Exists}]
affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {a: b}}}}]}}
topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}]
podDisruptionBudget: {enabled: true, maxUnavailable: 1}
metrics: {port: 9100, certificate: {secretName: cert}, token: {secretName: token}, service: {enabled: true, annotations: {a: b}}, serviceMonitor: {enabled: true, labels: {release: prom}, interval: 30s}, podMonitor: {enabled: true, labels: {release: prom}, interval: 1m}, headscales: {serviceMonitor: {enabled: true, labels: {release: prom}, interval: 30s}, podMonitor: {enabled: true, labels: {release: prom}, interval: 1m}}, prometheusRule: {enabled: true, labels: {release: prom}}, dashboard: {enabled: true, labels: {mine: "1"}, annotations: {grafana_folder: VPN}}}
networkPolicy: {enabled: true, metricsFrom: [{namespaceSelector: {matchLabels: {a: b}}}], apiServer: {to: [{ipBlock: {cidr: 10.0.0.1/32}}], ports: [6443]}, headscales: {enabled: true}}
admissionPolicy: {enabled: true}
test: {image: registry.example.com/kubectl:v1}
extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: more, namespace: team-a}}]
`

// refused are values that must not be rendered, with a part of what is said.
var refused = map[string][2]string{
	"an unknown key":            {`{replica: 2}`, "replica"},
	"an unknown nested key":     {`{image: {name: x}}`, "name"},
	"a bad digest":              {`{image: {digest: sha256:12}}`, "digest"},
	"replicas without a leader": {`{replicas: 2, leaderElection: {enabled: false}}`, "replicas"},
	"a bad namespace":           {`{watchNamespaces: [Not_OK]}`, "watchNamespaces"},
	"a bad log level":           {`{log: {level: loud}}`, "level"},
	"a nameless account":        {`{serviceAccount: {create: false}}`, "serviceAccount.name must be set"},
	"a label that is a number":  {`{metrics: {dashboard: {labels: {grafana_dashboard: 1}}}}`, "grafana_dashboard"},
	"an unknown monitor":        {`{metrics: {headscales: {probe: {enabled: true}}}}`, "probe"},
	"a bad interval":            {`{metrics: {headscales: {podMonitor: {interval: 1 minute}}}}`, "interval"},
	"an impossible port":        {`{metrics: {port: 70000}}`, "port"},
	"the port of the probes":    {`{metrics: {port: 8081}}`, "port"},
	"a name that is none":       {`{fullnameOverride: Not_OK}`, "fullnameOverride"},
	"a label that is none":      {`{nameOverride: "not ok"}`, "nameOverride"},
	"a switch that is none":     {`{enabled: sometimes}`, "enabled"},
	"a policy that is half on":  {`{admissionPolicy: {enabled: audit}}`, "enabled"},
	"an unknown policy":         {`{admissionPolicy: {pods: true}}`, "pods"},
	"a label of the selector":   {`{podLabels: {app.kubernetes.io/name: x}}`, "podLabels"},
	"a label of a monitor":      {`{metrics: {serviceMonitor: {enabled: true, labels: {app.kubernetes.io/version: x}}}}`, "labels"},
	"a label of the dashboard":  {`{metrics: {dashboard: {enabled: true, labels: {app.kubernetes.io/name: x}}}}`, "labels"},
	"a monitor of nothing":      {`{metrics: {enabled: false, serviceMonitor: {enabled: true}}}`, "serviceMonitor"},
	"pods to scrape nothing of": {`{metrics: {enabled: false, podMonitor: {enabled: true}}}`, "podMonitor"},
	"a Service of nothing":      {`{metrics: {enabled: false, service: {enabled: true}}}`, "service"},
	"a token of nobody":         {`{metrics: {podMonitor: {enabled: true}}}`, "metrics.token.secretName must be set for metrics.podMonitor"},
	"a certificate of nothing":  {`{metrics: {secure: false, certificate: {secretName: x}}}`, "leave one of the two out"},
	"policies for no namespace": {`{networkPolicy: {headscales: {enabled: true}}}`, "networkPolicy.headscales.namespaces must be set"},
	"a flag of the metrics":     {`{extraArgs: [--metrics-secure=false]}`, "extraArgs"},
	"a flag that has a value":   {`{extraArgs: [--leader-elect]}`, "extraArgs"},
	"a variable that has one":   {`{extraEnv: [{name: MANAGER_IMAGE, value: x}]}`, "extraEnv"},
}

var _ = Describe("The chart's values", func() {
	for _, helm := range helms {
		It("pass the linter of "+helm, func(ctx SpecContext) {
			for name, values := range accepted {
				_, err := tool(ctx, helm, "lint", "--strict", chartDir(), "--values", valuesFile(values))
				Expect(err).NotTo(HaveOccurred(), name)
			}
		})

		for name, test := range refused {
			It("are refused by "+helm+": "+name, func(ctx SpecContext) {
				_, err := render(ctx, helm, test[0])
				Expect(err).To(MatchError(ContainSubstring(test[1])))
			})
		}
	}

	for name, values := range accepted {
		It("give what an API server accepts: "+name, func(ctx SpecContext) {
			manifests, err := render(ctx, "helm3", values)
			Expect(err).NotTo(HaveOccurred())
			ofHelm4, err := render(ctx, "helm4", values)
			Expect(err).NotTo(HaveOccurred())
			rendered := objectsAndHooks(manifests)
			Expect(objectsAndHooks(ofHelm4)).To(Equal(rendered))

			file := filepath.Join(GinkgoT().TempDir(), "manifests.yaml")
			Expect(os.WriteFile(file, []byte(manifests), 0o600)).To(Succeed())
			said, err := plane.Kubectl(ctx, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", file)
			Expect(err).NotTo(HaveOccurred())
			Expect(strings.Count(said, "serverside-applied")).To(Equal(len(rendered)))

			// This also renders the notes. (The definition of the kind is there already.)
			notes, err := toolOn(ctx, plane.Kubeconfig(), "helm4", "install", releaseName, chartDir(), "--namespace", operatorNamespace,
				"--dry-run=server", "--take-ownership", "--values", valuesFile(values))
			Expect(err).NotTo(HaveOccurred())
			Expect(notes).To(ContainSubstring(" rollout status deployment/"))
		})
	}

	It("prefer a digest over a tag", func(ctx SpecContext) {
		container := managerContainer(ctx, accepted["digests"])
		Expect(container["image"]).To(Equal("ghcr.io/infrado/headscale-operator/operator@" + digest))
		Expect(container["env"]).To(ContainElement(HaveKeyWithValue("value", "ghcr.io/infrado/headscale-operator/apikey-manager@"+digest)))
	})

	It("narrow the rights to the namespaces that are named", func(ctx SpecContext) {
		manifests, err := render(ctx, "helm4", accepted["some namespaces"])
		Expect(err).NotTo(HaveOccurred())
		rendered := objects(manifests)
		Expect(clusterRoleBindings(rendered)).To(ConsistOf("ClusterRoleBinding headscale-operator-metrics-auth-rolebinding"), "of no right on an object")
		for _, without := range []string{`{watchNamespaces: [team-a], metrics: {secure: false}}`, `{watchNamespaces: [team-a], metrics: {enabled: false}}`} {
			manifests, err := render(ctx, "helm4", without)
			Expect(err).NotTo(HaveOccurred())
			Expect(clusterRoleBindings(objects(manifests))).To(BeEmpty(), without)
		}
		Expect(rendered).To(And(HaveKey("Role team-a/headscale-operator-manager-role"), HaveKey("RoleBinding team-b/headscale-operator-manager-rolebinding")))
		rules, _, err := unstructured.NestedSlice(rendered["Role team-a/headscale-operator-manager-role"].Object, "rules")
		Expect(err).NotTo(HaveOccurred())
		Expect(rules).To(And(ContainElement(HaveKeyWithValue("resources", ContainElement("secrets"))),
			Not(ContainElement(HaveKeyWithValue("resources", ContainElement("storageclasses"))))), "which are in no namespace")
		Expect(managerContainer(ctx, accepted["some namespaces"])["env"]).To(ContainElement(map[string]any{"name": "WATCH_NAMESPACES", "value": "team-a,team-b"}))
	})

	It("end one operator before the next begins, where none is elected", func(ctx SpecContext) {
		for values, want := range map[string]string{"": "RollingUpdate", `{leaderElection: {enabled: false}}`: "Recreate"} {
			manifests, err := render(ctx, "helm4", values)
			Expect(err).NotTo(HaveOccurred())
			strategy, _, err := unstructured.NestedString(deploymentOf(objects(manifests)), "spec", "strategy", "type")
			Expect(err).NotTo(HaveOccurred())
			Expect(strategy).To(Equal(want), values)
			if want == "Recreate" {
				Expect(containerOf(objects(manifests))["args"]).NotTo(ContainElement("--leader-elect"))
			} else {
				Expect(containerOf(objects(manifests))["args"]).To(ContainElement("--leader-elect"))
			}
		}
	})

	It("leave the selector of a constraint as it is written", func(ctx SpecContext) {
		manifests, err := render(ctx, "helm4", `{topologySpreadConstraints: [
			{maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchExpressions: [{key: b, operator: Exists}]}},
			{maxSkew: 1, topologyKey: c, whenUnsatisfiable: ScheduleAnyway}]}`)
		Expect(err).NotTo(HaveOccurred())
		deployment := deploymentOf(objects(manifests))
		own, _, err := unstructured.NestedMap(deployment, "spec", "selector")
		Expect(err).NotTo(HaveOccurred())
		constraints, _, err := unstructured.NestedSlice(deployment, "spec", "template", "spec", "topologySpreadConstraints")
		Expect(err).NotTo(HaveOccurred())
		Expect(constraints).To(HaveExactElements(
			HaveKeyWithValue("labelSelector", map[string]any{"matchExpressions": []any{map[string]any{"key": "b", "operator": "Exists"}}}),
			HaveKeyWithValue("labelSelector", own)))
	})

	It("may name another container as the pod's default", func(ctx SpecContext) {
		manifests, err := render(ctx, "helm4", `{podAnnotations: {kubectl.kubernetes.io/default-container: mine}}`)
		Expect(err).NotTo(HaveOccurred())
		annotations, _, err := unstructured.NestedStringMap(deploymentOf(objects(manifests)), "spec", "template", "metadata", "annotations")
		Expect(err).NotTo(HaveOccurred())
		Expect(annotations).To(Equal(map[string]string{"kubectl.kubernetes.io/default-container": "mine"}))
	})

	It("have Prometheus look where the operator does", func(ctx SpecContext) {
		for values, want := range map[string]map[string]any{
			accepted["all of monitoring"]:  {"any": true},
			accepted["monitored in parts"]: {"matchNames": []any{"team-a", "team-b"}},
		} {
			manifests, err := render(ctx, "helm4", values)
			Expect(err).NotTo(HaveOccurred())
			var seen int
			for name, object := range objects(manifests) {
				if strings.HasSuffix(name, "-headscales") {
					Expect(object.Object["spec"]).To(HaveKeyWithValue("namespaceSelector", want), name)
					seen++
				}
			}
			Expect(seen).To(BeNumerically(">=", 1))
		}
	})

	It("bring the dashboard where Grafana's sidecar finds it", func(ctx SpecContext) {
		manifests, err := render(ctx, "helm4", accepted["all of monitoring"])
		Expect(err).NotTo(HaveOccurred())
		dashboard := objects(manifests)["ConfigMap "+operatorNamespace+"/headscale-operator-dashboard"]
		Expect(dashboard).NotTo(BeNil())
		Expect(dashboard.GetLabels()).To(And(HaveKeyWithValue("grafana_dashboard", "1"), HaveKeyWithValue("mine", "1")))
		Expect(dashboard.GetAnnotations()).To(HaveKeyWithValue("grafana_folder", "VPN"))
		file, err := os.ReadFile(filepath.Join(chartDir(), "files", "dashboard.json"))
		Expect(err).NotTo(HaveOccurred())
		Expect(dashboard.Object).To(HaveKeyWithValue("data", HaveKeyWithValue("headscale-operator.json", MatchJSON(file))))
	})

	It("have the NetworkPolicy of the recipe in each namespace", func(ctx SpecContext) {
		page, err := pages.Read(root, "docs/recipes.md")
		Expect(err).NotTo(HaveOccurred())
		recipe, err := page.Below("Metrics for Prometheus only", "yaml")
		Expect(err).NotTo(HaveOccurred())
		manifests, err := render(ctx, "helm4", `{watchNamespaces: [team-a, team-b], networkPolicy: {headscales: {enabled: true,
			metricsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}}}`)
		Expect(err).NotTo(HaveOccurred())
		for _, namespace := range []string{"team-a", "team-b"} {
			Expect(objects(manifests)["NetworkPolicy "+namespace+"/headscale-operator-headscales"].Object["spec"]).To(
				Equal(objects(recipe[0])["NetworkPolicy headscales"].Object["spec"]))
		}
	})

	It("let nobody read the metrics of Headscales where nobody is named", func(ctx SpecContext) {
		manifests, err := render(ctx, "helm4", `{networkPolicy: {headscales: {enabled: true, namespaces: [team-a]}}}`)
		Expect(err).NotTo(HaveOccurred())
		Expect(manifests).To(And(ContainSubstring("port: stun"), Not(ContainSubstring("port: apikey-metrics"))))
	})

	It("let those who are named use the admin endpoint, besides the operator", func(ctx SpecContext) {
		for values, admitted := range map[string]int{`namespaces: [team-a]`: 1, `namespaces: [team-a], adminFrom: [{podSelector: {matchLabels: {a: b}}}]`: 2} {
			manifests, err := render(ctx, "helm4", `{networkPolicy: {headscales: {enabled: true, `+values+`}}}`)
			Expect(err).NotTo(HaveOccurred())
			spec := objects(manifests)["NetworkPolicy team-a/headscale-operator-headscales"].Object["spec"]
			Expect(spec).To(HaveKeyWithValue("ingress", ContainElement(And(
				HaveKeyWithValue("ports", ConsistOf(HaveKeyWithValue("port", "apikey-admin"))),
				HaveKeyWithValue("from", HaveLen(admitted))))))
		}
	})

	It("keep the resource's definition unless told otherwise", func(ctx SpecContext) {
		const crd = "CustomResourceDefinition headscales.headscale.infrado.cloud"
		for values, kept := range map[string]bool{"": true, "{crds: {keep: false}}": false} {
			manifests, err := render(ctx, "helm4", values)
			Expect(err).NotTo(HaveOccurred())
			_, marked := objects(manifests)[crd].GetAnnotations()["helm.sh/resource-policy"]
			Expect(marked).To(Equal(kept), values)
		}
	})
})

// clusterRoleBindings are the names of those among objects.
func clusterRoleBindings(objects map[string]*unstructured.Unstructured) []string {
	names := slices.Collect(maps.Keys(objects))
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "ClusterRoleBinding ") })
}

// managerContainer is the operator's container in what the values give.
func managerContainer(ctx SpecContext, values string) map[string]any {
	GinkgoHelper()
	manifests, err := render(ctx, "helm4", values)
	Expect(err).NotTo(HaveOccurred())
	return containerOf(objects(manifests))
}

// deploymentName is the operator's Deployment in what objects returns.
const deploymentName = "Deployment " + operatorNamespace + "/headscale-operator-controller-manager"

// deploymentOf is the operator's Deployment among objects.
func deploymentOf(objects map[string]*unstructured.Unstructured) map[string]any {
	GinkgoHelper()
	deployment := objects[deploymentName]
	Expect(deployment).NotTo(BeNil())
	return deployment.Object
}

// containerOf is the operator's container among objects.
func containerOf(objects map[string]*unstructured.Unstructured) map[string]any {
	GinkgoHelper()
	containers, _, err := unstructured.NestedFieldNoCopy(deploymentOf(objects), "spec", "template", "spec", "containers")
	Expect(err).NotTo(HaveOccurred())
	Expect(containers).To(HaveLen(1))
	container, _ := containers.([]any)[0].(map[string]any)
	return container
}
