package integration_test

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = DescribeTable("A Headscale that does not start says why in the status",
	func(ctx SpecContext, config, words string) {
		namespace := newNamespace(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, strings.Replace(shortestManifest, "config: {", "config: {"+config+", ", 1))
		for _, kind := range []string{v1beta1.ConditionReady, v1beta1.ConditionAvailable} {
			Eventually(func() any { return meta.FindStatusCondition(hs.get(ctx).Status.Conditions, kind) }).Should(And(
				HaveField("Reason", v1beta1.ReasonCrashing), HaveField("Message", ContainSubstring(words))))
		}
	},
	Entry("a prefix that is none", `prefixes: {v4: 300.64.0.0/10}`, `parsing IPv4 prefix from config`),
	Entry("a policy that is not there", `policy: {mode: file, path: /nonexistent/policy.hujson}`, `loading policy: open /nonexistent/policy.hujson: no such file or directory`),
	Entry("no name server", `dns: {override_local_dns: true, magic_dns: true, base_domain: tail.example.org}`, `dns.nameservers.global must be set when dns.override_local_dns is true`),
	Entry("no relay", `derp: {server: {enabled: false}, urls: [], auto_update_enabled: false}`, `initial DERPMap is empty`),
	Entry("a database that does not answer", `database: {type: postgres, postgres: {host: 127.0.0.1, port: 1, name: headscale, user: headscale}}`, `failed to connect to`),
)
