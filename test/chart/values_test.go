package chart_test

import (
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// digest is one that an image could have.
const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// accepted are values that must give what an API server accepts.
var accepted = map[string]string{
	"nothing":             "",
	"other names":         `{nameOverride: hs, fullnameOverride: a-name-of-more-than-forty-characters-in-all}`,
	"several replicas":    `{replicas: 3, podDisruptionBudget: {enabled: true, maxUnavailable: 50%}, topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}]}`,
	"some namespaces":     `{watchNamespaces: [team-a, team-b]}`,
	"without CRDs":        `{crds: {enabled: false}}`,
	"CRDs that go":        `{crds: {keep: false}}`,
	"without roles":       `{rbac: {create: false}, serviceAccount: {create: false, name: mine}}`,
	"without aggregation": `{rbac: {aggregate: false}}`,
	"all of the metrics":  `{metrics: {port: 9100, service: {annotations: {a: b}}, serviceMonitor: {enabled: true, labels: {release: prom}, interval: 30s}, podMonitor: {enabled: true, labels: {release: prom}, interval: 1m}}}`,
	"all of monitoring":   `{metrics: {headscales: {serviceMonitor: {enabled: true, labels: {release: prom}, interval: 30s}, podMonitor: {enabled: true, labels: {release: prom}, interval: 1m}}, prometheusRule: {enabled: true, labels: {release: prom}}, dashboard: {enabled: true, labels: {mine: "1"}, annotations: {grafana_folder: VPN}}}}`,
	"monitored in parts":  `{watchNamespaces: [team-a, team-b], fullnameOverride: hs, metrics: {enabled: false, headscales: {podMonitor: {enabled: true}}, prometheusRule: {enabled: true}}}`,
	"no metrics":          `{metrics: {enabled: false, serviceMonitor: {enabled: true}}, networkPolicy: {enabled: true}}`,
	"a network policy":    `{networkPolicy: {enabled: true, metricsFrom: [{namespaceSelector: {matchLabels: {a: b}}}], apiServer: {to: [{ipBlock: {cidr: 10.0.0.1/32}}], ports: [6443]}}}`,
	"digests":             `{image: {digest: "` + digest + `"}, managerImage: {digest: "` + digest + `", tag: ignored}}`,
	"logs and flags":      `{log: {format: json, level: debug}, extraArgs: ["--pprof-bind-address=127.0.0.1:6060"], extraEnv: [{name: GOMEMLIMIT, value: 200MiB}]}`,
	"a choice of nodes":   `{nodeSelector: {a: b}, tolerations: [{operator: Exists}], priorityClassName: system-cluster-critical, affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}}`,
	"marks on the pod":    `{podAnnotations: {a: b}, podLabels: {c: d}, imagePullSecrets: [{name: registry}], serviceAccount: {annotations: {e: f}}}`,
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
}

var _ = Describe("The chart's values", func() {
	for _, helm := range helms {
		It("pass the linter of "+helm, func(ctx SpecContext) {
			for name, values := range accepted {
				file := filepath.Join(GinkgoT().TempDir(), "values.yaml")
				Expect(os.WriteFile(file, []byte(values), 0o600)).To(Succeed())
				_, err := tool(ctx, helm, "lint", "--strict", chartDir(), "--values", file)
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
			Expect(objects(ofHelm4)).To(Equal(objects(manifests)))

			file := filepath.Join(GinkgoT().TempDir(), "manifests.yaml")
			Expect(os.WriteFile(file, []byte(manifests), 0o600)).To(Succeed())
			said, err := plane.Kubectl(ctx, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", file)
			Expect(err).NotTo(HaveOccurred())
			Expect(strings.Count(said, "serverside-applied")).To(BeNumerically(">=", len(objects(manifests))))
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
		Expect(rendered).NotTo(HaveKey(HavePrefix("ClusterRoleBinding ")))
		Expect(rendered).To(And(HaveKey("Role team-a/headscale-operator-manager-role"), HaveKey("RoleBinding team-b/headscale-operator-manager-rolebinding")))
		Expect(managerContainer(ctx, accepted["some namespaces"])["args"]).To(ContainElement("--watch-namespaces=team-a,team-b"))
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

// managerContainer is the operator's container in what the values give.
func managerContainer(ctx SpecContext, values string) map[string]any {
	GinkgoHelper()
	manifests, err := render(ctx, "helm4", values)
	Expect(err).NotTo(HaveOccurred())
	deployment := objects(manifests)["Deployment "+operatorNamespace+"/headscale-operator-controller-manager"]
	Expect(deployment).NotTo(BeNil())
	containers, _, err := unstructured.NestedSlice(deployment.Object, "spec", "template", "spec", "containers")
	Expect(err).NotTo(HaveOccurred())
	Expect(containers).To(HaveLen(1))
	container, _ := containers[0].(map[string]any)
	return container
}
