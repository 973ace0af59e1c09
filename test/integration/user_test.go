package integration_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/env"
)

// users lists the users of a Headscale, on its socket.
func (s *server) users(ctx context.Context) ([]headscale.User, error) {
	asks := headscale.NewClient(headscale.UnixSocket(s.pod.HostPath(containerManager, v1beta1.DefaultSocketPath)))
	defer func() { _ = asks.Close() }()
	return asks.ListUsers(ctx)
}

// userNames are the names of all users.
func (s *server) userNames(ctx context.Context) ([]string, error) {
	users, err := s.users(ctx)
	var names []string
	for i := range users {
		names = append(names, users[i].Name)
	}
	return names, err
}

// userManifest is a HeadscaleUser.
func userManifest(name, spec string) string {
	return "apiVersion: headscale.infrado.cloud/v1beta1\nkind: HeadscaleUser\nmetadata: {name: " + name + "}\nspec: {headscaleRef: headscale, username: " + name + spec + "}\n"
}

// readyUser reads a HeadscaleUser that is ready.
func readyUser(ctx context.Context, namespace, name string) *v1beta1.HeadscaleUser {
	GinkgoHelper()
	user := &v1beta1.HeadscaleUser{}
	Eventually(func(g Gomega) {
		g.Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, user)).To(Succeed())
		ready := meta.FindStatusCondition(user.Status.Conditions, v1beta1.ConditionReady)
		g.Expect(ready).NotTo(BeNil())
		g.Expect(ready.Status).To(Equal(metav1.ConditionTrue), ready.Message)
		g.Expect(ready.ObservedGeneration).To(Equal(user.Generation))
	}).WithContext(ctx).Should(Succeed())
	return user
}

var _ = Describe("Users of a real Headscale, through the admin endpoint", func() {
	for _, version := range []string{"v0.26.1", "v0.27.1", "v0.28.0", "v0.29.3"} {
		It("are created, renamed and deleted on "+version, func(ctx SpecContext) {
			namespace := newNamespace(ctx)
			hs := runPod(namespace, "headscale")
			// The user first: it waits for its Headscale.
			apply(ctx, namespace, userManifest("alice", ", displayName: Alice, deletionPolicy: Delete"))
			apply(ctx, namespace, strings.Replace(shortestManifest, "version: v0.29.3", "version: "+version, 1))
			user := readyUser(ctx, namespace, "alice")
			users, err := hs.users(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(users).To(ConsistOf(And(HaveField("Name", "alice"), HaveField("DisplayName", "Alice"), HaveField("ID", user.Status.UserID))))

			table, err := plane.Kubectl(ctx, "get", "hsuser", "-n", namespace)
			Expect(err).NotTo(HaveOccurred())
			lines := strings.Split(strings.TrimSpace(table), "\n")
			Expect(strings.Fields(lines[0])).To(Equal([]string{"NAME", "HEADSCALE", "USERNAME", "ID", "READY", "AGE"}))
			Expect(strings.Fields(lines[1])[:5]).To(Equal([]string{"alice", "headscale", "alice", fmt.Sprint(user.Status.UserID), "True"}))

			// The sidecar starts again, with another certificate.
			hs.pod.Process(containerManager).Kill()
			apply(ctx, namespace, strings.Replace(userManifest("alice", ", displayName: Alice, deletionPolicy: Delete"), "username: alice", "username: alicia", 1))
			Eventually(hs.userNames).WithContext(ctx).WithArguments(ctx).Should(ConsistOf("alicia"))
			readyUser(ctx, namespace, "alice")

			// So does Headscale, and somebody renames the user in between.
			hs.pod.Process(containerHeadscale).Kill()
			Eventually(func(g Gomega) {
				asks := headscale.NewClient(headscale.UnixSocket(hs.pod.HostPath(containerManager, v1beta1.DefaultSocketPath)))
				defer func() { _ = asks.Close() }()
				_, err := asks.RenameUser(ctx, user.Status.UserID, "mallory")
				g.Expect(err).NotTo(HaveOccurred())
			}).WithContext(ctx).Should(Succeed())
			Eventually(hs.userNames).WithContext(ctx).WithArguments(ctx).Should(ConsistOf("alicia"))

			// The key is replaced, and nobody notices.
			before := keyOf(hs.awaitRest(ctx, secretName))
			hs.patch(ctx, `{"metadata":{"annotations":{"`+v1beta1.AnnotationRotateRequestedAt+`":"now"}}}`)
			after := keyOf(hs.awaitKey(ctx, secretName, before))
			Expect(plane.Kubectl(ctx, "delete", "hsuser", "-n", namespace, "alice", "--timeout=60s")).To(ContainSubstring("deleted"))
			Expect(hs.userNames(ctx)).To(BeEmpty())

			all, err := plane.Kubectl(ctx, "get", "headscales,headscaleusers,events", "-n", namespace, "-o", "yaml")
			Expect(err).NotTo(HaveOccurred())
			for _, key := range []string{before, after} {
				for _, said := range []string{all, world.Operator.Process.Log().String(), hs.pod.Log(containerManager), hs.pod.Log(containerHeadscale)} {
					Expect(strings.Contains(said, key[len(key)-32:])).To(BeFalse(), "a key, or its secret half, is printed")
				}
			}
		})
	}
})

var _ = Describe("Users while programs are killed", Ordered, func() {
	const number = 30
	var own *env.World
	var hs *server
	var namespace string

	BeforeAll(func(ctx SpecContext) {
		shared := world
		own = startWorld(ctx, "hs-kill-")
		use(own)
		DeferCleanup(func() { use(shared) })
		namespace = newNamespace(ctx)
		hs = runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
		hs.awaitReady(ctx)
	})

	// killAgainAndAgain kills the operator at any moment, and now and then the sidecar or Headscale.
	killAgainAndAgain := func(ctx context.Context, times int) {
		GinkgoHelper()
		for i := range times {
			// Any moment of what it does: it has begun after some 300 ms.
			timer := time.NewTimer(time.Duration(rand.IntN(1500)) * time.Millisecond)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
			world.Operator.Process.Kill()
			<-world.Operator.Process.Exited()
			for name, every := range map[string]int{containerManager: 3, containerHeadscale: 5} {
				if running := hs.pod.Process(name); running != nil && i%every == every-1 {
					running.Kill()
				}
			}
			Expect(own.StartOperator(ctx, unelected)).To(Succeed())
		}
	}
	name := func(i int) string { return fmt.Sprintf("user-%02d", i) }

	It("are created once each", func(ctx SpecContext) {
		for i := range number {
			apply(ctx, namespace, userManifest(name(i), ", displayName: Number"))
		}
		killAgainAndAgain(ctx, 8)
		ids := map[uint64]bool{}
		for i := range number {
			user := readyUser(ctx, namespace, name(i))
			Expect(user.Status.Adopted).To(BeFalse(), "it is known whose it is")
			Expect(user.Finalizers).To(ConsistOf(v1beta1.FinalizerUser))
			ids[user.Status.UserID] = true
		}
		Expect(ids).To(HaveLen(number))
		Expect(hs.userNames(ctx)).To(HaveLen(number))
	})

	It("are renamed", func(ctx SpecContext) {
		for i := range number {
			apply(ctx, namespace, strings.Replace(userManifest(name(i), ", displayName: Number"), "username: "+name(i), "username: "+name((i+1)%number), 1))
		}
		killAgainAndAgain(ctx, 5)
		for i := range number {
			user := readyUser(ctx, namespace, name(i))
			var users []headscale.User
			// Headscale was killed last, too.
			Eventually(func() (err error) { users, err = hs.users(ctx); return err }).WithContext(ctx).Should(Succeed())
			Expect(users).To(ContainElement(And(HaveField("ID", user.Status.UserID), HaveField("Name", name((i+1)%number)))))
		}
		Expect(hs.userNames(ctx)).To(HaveLen(number))
	})

	It("are deleted", func(ctx SpecContext) {
		_, err := plane.Kubectl(ctx, "delete", "headscaleusers", "--all", "-n", namespace, "--wait=false")
		Expect(err).NotTo(HaveOccurred())
		killAgainAndAgain(ctx, 5)
		Eventually(func(g Gomega) {
			left := &v1beta1.HeadscaleUserList{}
			g.Expect(admin.List(ctx, left, client.InNamespace(namespace))).To(Succeed())
			g.Expect(left.Items).To(BeEmpty())
			g.Expect(hs.userNames(ctx)).To(BeEmpty())
		}).WithContext(ctx).Should(Succeed())
	})

	It("of a namespace that is deleted with its Headscale are let go", func(ctx SpecContext) {
		apply(ctx, namespace, userManifest("last", ""))
		readyUser(ctx, namespace, "last")
		Expect(admin.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})).To(Succeed())
		// What the namespace controller does.
		_, err := plane.Kubectl(ctx, "delete", "headscales,headscaleusers", "--all", "-n", namespace, "--timeout=30s")
		Expect(err).NotTo(HaveOccurred())
	})
})
