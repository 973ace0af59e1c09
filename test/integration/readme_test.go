package integration_test

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/pages"
)

var _ = Describe("The first manifest of the README", func() {
	It("is a tailnet with a backup, a user, a pre-auth key and a policy", func(ctx SpecContext) {
		page, err := pages.Read(root, "README.md")
		Expect(err).NotTo(HaveOccurred())
		manifest := page.Blocks[0].Text
		Expect(strings.Count(manifest, "\n")).To(BeNumerically("<=", 40), "a reader takes it in at a glance")
		s3 := newStorage(ctx)
		const endpoint = "https://s3.example.com"
		Expect(strings.Count(manifest, endpoint)).To(Equal(1))
		manifest = strings.Replace(manifest, endpoint, `"http://`+s3.address+`"`, 1)

		hs := &backedUp{server: &server{key: client.ObjectKey{Namespace: newNamespace(ctx), Name: "headscale"}}, storage: s3}
		hs.run()
		DeferCleanup(func() { hs.stop() })
		apply(ctx, hs.key.Namespace, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: backup-credentials}\n"+
			"stringData: {AWS_ACCESS_KEY_ID: %s, AWS_SECRET_ACCESS_KEY: %s}\n", accessKey, secretKey))
		apply(ctx, hs.key.Namespace, manifest)

		hs.awaitReady(ctx)
		readyPolicy(ctx, hs.key.Namespace, "web")
		readyUser(ctx, hs.key.Namespace, "alice")
		Expect(hs.users(ctx)).To(ConsistOf("alice"))
		Expect(hs.policyInForce(ctx)).To(ContainSubstring("tag:web:443"))
		Eventually(func(g Gomega) string {
			_, err := plane.Kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=1s", "headscaleuser/alice", "headscalepreauthkey/web", "-n", hs.key.Namespace)
			g.Expect(err).NotTo(HaveOccurred())
			secret, err := hs.secret(ctx, "web")
			g.Expect(err).NotTo(HaveOccurred())
			return string(secret.Data["key"])
		}).Should(HavePrefix("hskey-auth-"))
		hs.awaitReplicated(ctx, "alice")
	})
})
