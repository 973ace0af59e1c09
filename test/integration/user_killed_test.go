package integration_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// killed is a world with operators that kill themselves after a step, of which one runs at a time.
type killed struct {
	*env.World
	program string
}

// newKilled starts a world that has the programs of the shared one, and one that kills itself.
func newKilled(ctx context.Context) *killed {
	GinkgoHelper()
	shared := world
	made, err := env.NewWorld("hs-step-", GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	use(made)
	DeferCleanup(func() error { use(shared); return made.Close() })
	k := &killed{World: made, program: filepath.Join(made.Guard.Dir(), "killable")}
	made.Binaries = shared.Binaries
	Expect(serverbuild.BuildProgram(ctx, made.Root, "./cmd", k.program, GinkgoWriter, "faultinjection")).To(Succeed())
	Expect(made.StartPlane(nil)).To(Succeed())
	Expect(made.Plane.InstallOperator(ctx, made.Root)).To(Succeed())
	use(made)
	return k
}

// during runs an operator of the program that is shipped.
func (k *killed) during(ctx context.Context, do func()) {
	GinkgoHelper()
	running, err := k.RunOperator(ctx, k.Binaries.Operator, unelected)
	Expect(err).NotTo(HaveOccurred())
	do()
	Expect(running.Stop()).To(Succeed())
}

// after runs an operator that kills itself after a step, has it do something, and waits until it has.
func (k *killed) after(ctx context.Context, step string, do func()) {
	GinkgoHelper()
	GinkgoT().Setenv("OPERATOR_KILL_AFTER", step)
	running, err := k.RunOperator(ctx, k.program, unelected)
	Expect(err).NotTo(HaveOccurred())
	do()
	Eventually(running.Process.Exited()).WithContext(ctx).Should(BeClosed())
	Expect(running.Process.Describe()).To(ContainSubstring("killed"))
}

var _ = Describe("An operator that is killed at a step", func() {
	for _, version := range []string{"v0.26.1", "v0.29.3"} {
		Context("with Headscale "+version, Ordered, func() {
			var k *killed
			var hs *server
			var namespace string

			BeforeAll(func(ctx SpecContext) {
				k = newKilled(ctx)
				namespace = newNamespace(ctx)
				hs = runPod(namespace, "headscale")
				k.during(ctx, func() {
					apply(ctx, namespace, strings.Replace(shortestManifest, "version: v0.29.3", "version: "+version, 1))
					hs.awaitReady(ctx)
				})
			})

			// wanted applies a user with a name.
			wanted := func(ctx context.Context, object, name string) {
				GinkgoHelper()
				apply(ctx, namespace, strings.Replace(userManifest(object, ", displayName: Number"), "username: "+object, "username: "+name, 1))
			}
			// right expects one user of the object, of the name.
			right := func(ctx context.Context, object, name string) *v1beta1.HeadscaleUser {
				GinkgoHelper()
				user := readyUser(ctx, namespace, object)
				users, err := hs.users(ctx)
				Expect(err).NotTo(HaveOccurred())
				Expect(users).To(ConsistOf(And(HaveField("Name", name), HaveField("ID", user.Status.UserID))), "one user")
				Expect(user.Status.Adopted).To(BeFalse())
				Expect(user.Finalizers).To(ConsistOf(v1beta1.FinalizerUser))
				return user
			}
			gone := func(ctx context.Context, object string) {
				GinkgoHelper()
				Eventually(func(g Gomega) {
					err := admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: object}, &v1beta1.HeadscaleUser{})
					g.Expect(client.IgnoreNotFound(err)).To(Succeed())
					g.Expect(err).To(HaveOccurred())
				}).WithContext(ctx).Should(Succeed())
				Expect(hs.userNames(ctx)).To(BeEmpty())
			}
			deleted := func(ctx context.Context, object string) {
				GinkgoHelper()
				_, err := plane.Kubectl(ctx, "delete", "headscaleuser", "-n", namespace, object, "--wait=false")
				Expect(err).NotTo(HaveOccurred())
			}
			// sidecar kills the sidecar, which starts again with another certificate.
			sidecar := func() {
				GinkgoHelper()
				Eventually(func() bool { return hs.pod.Process(containerManager) != nil }).Should(BeTrue())
				hs.pod.Process(containerManager).Kill()
			}

			for i, steps := range [][3]string{{"note", "rename", "remove"}, {"create", "report", "release"}, {"report", "rename", "remove"}} {
				It("leaves one user when it creates, renames or deletes: "+strings.Join(steps[:], ", "), func(ctx SpecContext) {
					object, renamed := fmt.Sprintf("alice-%d", i), fmt.Sprintf("bob-%d", i)
					By("killing it while it creates, after " + steps[0])
					k.after(ctx, steps[0], func() { wanted(ctx, object, object) })
					sidecar()
					var user *v1beta1.HeadscaleUser
					k.during(ctx, func() { user = right(ctx, object, object) })

					By("killing it while it renames, after " + steps[1])
					k.after(ctx, steps[1], func() { wanted(ctx, object, renamed) })
					sidecar()
					k.during(ctx, func() { Expect(right(ctx, object, renamed).Status.UserID).To(Equal(user.Status.UserID)) })

					By("killing it while it deletes, after " + steps[2])
					k.after(ctx, steps[2], func() { deleted(ctx, object) })
					sidecar()
					k.during(ctx, func() { gone(ctx, object) })
				})
			}
		})
	}
})
