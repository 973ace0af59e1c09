package preauthkey

import (
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
)

// input is HeadscalePreAuthKeys as users might write them.
var input = &instancetest.Input{Cluster: cluster, Kind: v1beta1.KindPreAuthKey, Resource: "headscalepreauthkeys", Name: "web", Package: "preauthkey"}

var _ = input.DescribeBadInput()

var _ = Describe("Good input", func() {
	It("is taken as people have written it for another operator of the API group, with the defaults", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		raw, err := os.ReadFile(filepath.Join("testdata", "another-operator.yaml"))
		Expect(err).NotTo(HaveOccurred())
		apply(ctx, namespace, string(raw))
		key := get(ctx, namespace, "preauthkey-b")(NewWithT(GinkgoT()))
		Expect(key.Spec).To(Equal(v1beta1.HeadscalePreAuthKeySpec{
			HeadscaleRef: "headscale", HeadscaleUserRef: "user-b", Reusable: true, Ephemeral: true, Expiration: "24h", Tags: []v1beta1.Tag{"tag:server"},
			SecretName: "preauthkey-b", RevocationDelay: "0s", Reissue: v1beta1.ReissueAlways, SecretKey: "key", DeletionPolicy: v1beta1.DeletionPolicyDelete,
		}))
	})

	It("may change what is not bound to the key or its Secret", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		Expect(input.Create(ctx, namespace, "{headscaleRef: headscale, headscaleUserRef: alice}")).To(Succeed())
		for _, change := range []string{
			`{"headscaleUserRef":null,"userId":1}`, `{"userId":null,"tags":["tag:web"]}`, `{"reusable":true}`, `{"ephemeral":true}`, `{"expiration":"1000h"}`,
			`{"rotationBuffer":"999h"}`, `{"rotationBuffer":null}`, `{"revocationDelay":"5m"}`, `{"reissue":"Never"}`, `{"secretKey":"authkey"}`,
			`{"secretTemplate":{"labels":{"example.com/app":"web"},"annotations":{"note":"any text"}}}`, `{"deletionPolicy":"Retain"}`,
		} {
			Expect(input.Change(ctx, namespace, change)).To(Succeed(), change)
		}
	})
})
