package user

import (
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
)

// input is HeadscaleUsers as users might write them.
var input = &instancetest.Input{Cluster: cluster, Kind: v1beta1.KindUser, Resource: "headscaleusers", Name: "user", Package: "user"}

var _ = input.DescribeBadInput()

var _ = Describe("Good input", func() {
	It("is taken as people have written it for another operator of the API group", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		raw, err := os.ReadFile(filepath.Join("testdata", "another-operator.yaml"))
		Expect(err).NotTo(HaveOccurred())
		apply(ctx, namespace, string(raw))
		user := get(ctx, namespace, "user-b")(NewWithT(GinkgoT()))
		Expect(user.Spec).To(Equal(v1beta1.HeadscaleUserSpec{
			HeadscaleRef: "headscale", Username: "user-b", DisplayName: "User B", Email: "user-b@example.com", PictureURL: "https://example.com/b.png",
		}))
	})

	DescribeTable("is taken with the username", func(ctx SpecContext, username string) {
		Expect(input.Create(ctx, newNamespace(ctx), "{headscaleRef: headscale, username: "+username+"}")).To(Succeed())
	},
		Entry("of two characters", "ab"),
		Entry("of an e-mail address", "alice.smith@example.com"),
		Entry("with digits", "a1-2_3.4"),
		Entry("in capitals", "ALICE"),
		Entry("in other letters", "ülrich"),
		Entry("in letters without case", "愛麗絲"),
		Entry("of 255 characters", strings.Repeat("x", 255)),
	)

	It("is taken again where it changes nothing, and may change the username and the policy", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		spec := "headscaleRef: headscale, headscaleNamespace: hs, displayName: A, email: a@example.com, pictureURL: 'https://example.com/a.png'"
		Expect(input.Create(ctx, namespace, "{username: alice, "+spec+"}")).To(Succeed())
		for _, change := range []string{`{"username":"alice"}`, `{"username":"bob"}`, `{"deletionPolicy":"Retain"}`, `{"deletionPolicy":"Delete"}`, `{"deletionPolicy":null}`} {
			Expect(input.Change(ctx, namespace, change)).To(Succeed(), change)
		}
	})
})
