package resources

import (
	"testing"

	. "github.com/onsi/gomega"
)

// withAdditions is a spec that adds everything that can be added to the pod.
const withAdditions = `
version: v0.29.3
config: {server_url: "http://headscale.example.com"}
pod:
  resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 512Mi}}
  manager_resources: {requests: {cpu: "0.0001"}}
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [a]}]}]}}}
  tolerations: [{key: dedicated, operator: Exists, effect: NoSchedule}]
  topology_spread_constraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
  node_selector: {disk: ssd}
  priority_class_name: important
  annotations: {mesh.example/inject: "false"}
  labels: {team: network}
  env:
  - {name: HEADSCALE_LOG_LEVEL, value: debug}
  - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
  - {name: GOMAXPROCS, valueFrom: {resourceFieldRef: {containerName: headscale, resource: limits.cpu}}}
  volumes:
  - {name: ca, configMap: {name: ca}}
  - {name: all, projected: {sources: [{serviceAccountToken: {path: t, audience: vault}}, {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}]}}
  - {name: scratch, emptyDir: {}}
  - {name: me, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}
  volume_mounts:
  - {name: ca, mountPath: /etc/ssl/certs, readOnly: true}
`

func TestUnusableAdditions(t *testing.T) {
	for name, test := range map[string]struct{ pod, sentence string }{
		"a label of ours":               {`labels: {app.kubernetes.io/instance: x}`, "spec.pod.labels must not have app.kubernetes.io/instance: the operator sets it and finds its pods by it"},
		"an annotation of ours":         {`annotations: {headscale.infrado.cloud/config-hash: x}`, "spec.pod.annotations must not have headscale.infrado.cloud/config-hash: the operator sets it"},
		"kubectl's annotation":          {`annotations: {kubectl.kubernetes.io/default-container: x}`, "spec.pod.annotations must not have kubectl.kubernetes.io/default-container"},
		"a listener's variable":         {`env: [{name: HEADSCALE_LISTEN_ADDR, value: ":1"}]`, "spec.pod.env must not have HEADSCALE_LISTEN_ADDR, because the operator sets it from the config: set spec.config.listen_addr"},
		"a variable of the ACME server": {`env: [{name: HEADSCALE_TLS_LETSENCRYPT_LISTEN, value: ":1"}]`, "set spec.config.tls_letsencrypt_listen"},
		"AppArmor turned off":           {`annotations: {container.apparmor.security.beta.kubernetes.io/headscale: unconfined}`, "spec.pod.annotations must not have container.apparmor.security.beta.kubernetes.io/headscale: unconfined, which the restricted Pod Security Standard does not allow"},
		"seccomp turned off":            {`annotations: {seccomp.security.alpha.kubernetes.io/pod: unconfined}`, "spec.pod.annotations must not have seccomp.security.alpha.kubernetes.io/pod: unconfined"},
		"a nested setting":              {`env: [{name: HEADSCALE_DERP_SERVER_ENABLED, value: "false"}]`, "set spec.config.derp.server.enabled"},
		"a volume with a name of ours":  {`volumes: [{name: data, emptyDir: {}}]`, "spec.pod.volumes must not have the name data, which a volume of the operator's has: choose another, such as my-data"},
		"a mount of our volume":         {`volume_mounts: [{name: data, mountPath: /x}]`, `spec.pod.volume_mounts has the volume "data", which is not in spec.pod.volumes: add it there`},
		"a relative mount":              {`{volumes: [{name: a, emptyDir: {}}], volume_mounts: [{name: a, mountPath: x}]}`, `spec.pod.volume_mounts has the mountPath "x", which must be absolute`},
		"a mount over the config":       {`{volumes: [{name: a, emptyDir: {}}], volume_mounts: [{name: a, mountPath: /etc/headscale/x}]}`, "spec.pod.volume_mounts has the mountPath /etc/headscale/x, which conflicts with /etc/headscale: choose a directory of its own"},
		"a mount over everything":       {`{volumes: [{name: a, emptyDir: {}}], volume_mounts: [{name: a, mountPath: /}]}`, "spec.pod.volume_mounts has the mountPath /, which conflicts with"},
		"a mount by way of a parent":    {`{volumes: [{name: a, emptyDir: {}}], volume_mounts: [{name: a, mountPath: /x/../var/lib/headscale}]}`, "which conflicts with /var/lib/headscale"},
		"a mount over the socket":       {`{volumes: [{name: a, emptyDir: {}}], volume_mounts: [{name: a, mountPath: /var/run}]}`, "which conflicts with /var/run/headscale"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := "{" + shortSpec("")[1:len(shortSpec(""))-1] + ", pod: {" + trimBraces(test.pod) + "}}"
			_, err := Build(headscaleOf(t, spec), operatorOptions)
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(test.sentence)))
		})
	}
}

// trimBraces removes the braces around a YAML section in its short form.
func trimBraces(section string) string {
	if section[0] == '{' {
		return section[1 : len(section)-1]
	}
	return section
}

func TestAVariableBesideAReference(t *testing.T) {
	for variable, field := range map[string]string{
		"HEADSCALE_DATABASE_POSTGRES_PASS": "secrets.database_password",
		"HEADSCALE_OIDC_CLIENT_SECRET":     "secrets.oidc_client_secret",
		"HEADSCALE_POLICY_MODE":            "files.policy",
		"HEADSCALE_DNS_EXTRA_RECORDS":      "files.extra_dns_records",
	} {
		headscale := headscaleOf(t, withReferences+"pod: {env: [{name: "+variable+", value: x}]}\n")
		_, err := Build(headscale, operatorOptions)
		NewWithT(t).Expect(err).To(MatchError("spec.pod.env must not have " + variable + " where spec." + field + " is set"))
	}
}

func TestProfilesThatConfineAreAccepted(t *testing.T) {
	for _, profile := range []string{"runtime/default", "localhost/mine"} {
		spec := "{" + shortSpec("")[1:len(shortSpec(""))-1] + ", pod: {annotations: {container.apparmor.security.beta.kubernetes.io/headscale: " + profile + "}}}"
		_, err := Build(headscaleOf(t, spec), operatorOptions)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
	}
}
