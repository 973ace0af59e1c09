package user

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gstruct"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// nevertheless is a connection to a Headscale that refuses each change after it has made it, as one
// does that cannot evaluate its policy any more.
type nevertheless struct{ endpoint }

var errNevertheless = &headscale.Refusal{Words: "updating policy manager after user creation"}

func (n nevertheless) CreateUser(ctx context.Context, user headscale.NewUser) (headscale.User, error) {
	if _, err := n.endpoint.CreateUser(ctx, user); err != nil {
		return headscale.User{}, err
	}
	return headscale.User{}, errNevertheless
}

func (n nevertheless) RenameUser(ctx context.Context, id uint64, name string) (headscale.User, error) {
	if _, err := n.endpoint.RenameUser(ctx, id, name); err != nil {
		return headscale.User{}, err
	}
	return headscale.User{}, errNevertheless
}

func (n nevertheless) DeleteUser(ctx context.Context, id uint64) error {
	if err := n.endpoint.DeleteUser(ctx, id); err != nil {
		return err
	}
	return errNevertheless
}

var _ = Describe("A HeadscaleUser that Headscale refuses after it has done what was asked for", func() {
	for _, version := range releases {
		It("is created once, renamed and deleted as its own, on "+version, func(ctx SpecContext) {
			hs := startHeadscale(ctx, version)
			namespace := newNamespace(ctx)
			startOperator(namespace)
			s := &server{cluster.NewServer(ctx, &instancetest.ServerOptions{
				Namespace: namespace, Version: version, Dial: headscale.UnixSocket(hs.SocketPath()),
				API: func(connection *instancetest.Endpoint) instance.API { return nevertheless{endpoint{connection}} },
			})}
			apply(ctx, namespace, userManifest("user", "deletionPolicy: Delete, username: alice"))
			Eventually(condition(ctx, namespace, "user")).WithContext(ctx).Should(HavePrefix("True Ready: User alice "))
			made := s.named(ctx, "alice")
			Expect(get(ctx, namespace, "user")(NewWithT(GinkgoT()))).To(gstruct.PointTo(And(
				HaveField("Status.UserID", made.ID), HaveField("Status.Adopted", false), HaveField("Finalizers", ConsistOf(v1beta1.FinalizerUser)))))
			apply(ctx, namespace, userManifest("user", "deletionPolicy: Delete, username: bob"))
			Eventually(condition(ctx, namespace, "user")).WithContext(ctx).Should(HavePrefix("True Ready: User bob "))
			Expect(s.names(ctx)(NewWithT(GinkgoT()))).To(ConsistOf("bob"))
			Expect(s.named(ctx, "bob").ID).To(Equal(made.ID))
			deleteUser(ctx, namespace, "user")
			Eventually(get(ctx, namespace, "user")).WithContext(ctx).Should(BeNil())
			Expect(s.names(ctx)(NewWithT(GinkgoT()))).To(BeEmpty())
		})
	}
})
