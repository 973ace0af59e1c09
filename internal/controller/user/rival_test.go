package user

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// patchNamespace changes the metadata of a namespace.
func patchNamespace(ctx context.Context, name, metadata string) {
	GinkgoHelper()
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	Expect(admin.Patch(ctx, object, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":`+metadata+`}`)))).To(Succeed())
}

// patchHeadscale changes the Headscale of a namespace.
func patchHeadscale(ctx context.Context, namespace, text string) {
	GinkgoHelper()
	object := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "headscale"}}
	Expect(admin.Patch(ctx, object, client.RawPatch("application/merge-patch+json", []byte(text)))).To(Succeed())
}

// Two objects want one user, and the younger one has to have it as soon as the older one does not
// count any more. The older one has none yet: Headscale refuses to create it.
var _ = Describe("The younger of two HeadscaleUsers for one user", func() {
	const byLabel = "access: [{users: true, namespaces: {selector: {matchLabels: {team: a}}}}]"
	DescribeTable("gets it when the older one", func(ctx SpecContext, gives func(ctx context.Context, of, older, younger string)) {
		hs := startHeadscale(ctx, "v0.29.3")
		namespace, older, younger := newNamespace(ctx), newNamespace(ctx, "team=a"), newNamespace(ctx, "team=a")
		if older > younger { // which decides between objects of the same second
			older, younger = younger, older
		}
		startOperator()
		s := newServer(ctx, namespace, "v0.29.3", headscale.UnixSocket(hs.SocketPath()), byLabel)
		s.SetRefusedWrite(&headscale.Refusal{Words: "not now"})
		wanted := userManifest("user", "username: shared, headscaleNamespace: "+namespace)
		apply(ctx, older, wanted)
		Eventually(condition(ctx, older, "user")).WithContext(ctx).Should(HavePrefix("False Refused: "))
		apply(ctx, younger, wanted)
		Eventually(condition(ctx, younger, "user")).WithContext(ctx).Should(And(HavePrefix("False Conflict: "), ContainSubstring(older+"/user has the username shared")))
		s.SetRefusedWrite(nil)
		gives(ctx, namespace, older, younger)
		Eventually(condition(ctx, younger, "user")).WithContext(ctx).Should(HavePrefix("True Ready: "))
		Expect(s.names(ctx)(NewWithT(GinkgoT()))).To(ContainElement("shared"))
	},
		Entry("loses access because its namespace has another label", func(ctx context.Context, _, older, _ string) {
			patchNamespace(ctx, older, `{"labels":{"team":"b"}}`)
		}),
		Entry("loses access because the Headscale takes it away", func(ctx context.Context, of, _, younger string) {
			patchHeadscale(ctx, of, `{"spec":{"access":[{"users":true,"namespaces":{"names":["`+younger+`"]}}]}}`)
		}),
		Entry("is deleted", func(ctx context.Context, _, older, _ string) { deleteUser(ctx, older, "user") }),
		Entry("wants another name", func(ctx context.Context, of, older, _ string) {
			apply(ctx, older, userManifest("user", "username: another, headscaleNamespace: "+of))
		}),
	)
})
