package headscale

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// named is the shortest manifest under another name, for a Secret of its own.
func named(name, secret string) string {
	return strings.ReplaceAll(shortest, "name: headscale", "name: "+name) + "  api_key: {secret_name: " + secret + "}\n"
}

// lookedAfter lists, for each Secret, the Headscales whose sidecar runs for it and may
// write to it.
func lookedAfter(ctx context.Context, namespace string) func(Gomega) map[string][]string {
	return func(g Gomega) map[string][]string {
		sets, roles := &appsv1.StatefulSetList{}, &rbacv1.RoleList{}
		g.Expect(admin.List(ctx, sets, client.InNamespace(namespace))).To(Succeed())
		g.Expect(admin.List(ctx, roles, client.InNamespace(namespace))).To(Succeed())
		allowed := map[string][]string{}
		for i := range roles.Items {
			allowed[roles.Items[i].Name] = secretsOf(&roles.Items[i])
		}
		found := map[string][]string{}
		for i := range sets.Items {
			set := &sets.Items[i]
			for _, container := range set.Spec.Template.Spec.Containers {
				for _, argument := range container.Args {
					secret, named := strings.CutPrefix(argument, "--secret-name=")
					if named && container.Name == resources.ContainerManager {
						g.Expect(allowed[set.Name]).To(ConsistOf(secret), "the Role of %s", set.Name)
						found[secret] = append(found[secret], set.Name)
					}
				}
			}
		}
		return found
	}
}

var _ = Describe("A Secret that two Headscales want", func() {
	conflict := func(ctx context.Context, o *operator, name, owner string) {
		GinkgoHelper()
		Eventually(condition(ctx, o.namespace, name, v1beta1.ConditionReady)).WithContext(ctx).Should(
			be("False", v1beta1.ReasonConflict, "is already managed for Headscale "+owner))
	}

	It("stays with the one that has it, when one that is older by its name comes", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, named("zeta", "key"))).To(Succeed())
		Eventually(lookedAfter(ctx, o.namespace)).WithContext(ctx).Should(HaveKeyWithValue("key", []string{"zeta"}))
		Expect(create(ctx, o.namespace, named("alpha", "key"))).To(Succeed())
		conflict(ctx, o, "alpha", "zeta")
		o.touch(ctx, "zeta")
		Expect(lookedAfter(ctx, o.namespace)(NewGomega(Fail))).To(Equal(map[string][]string{"key": {"zeta"}}))
	})

	It("goes to one of many that come at once", func(ctx context.Context) {
		o := startOperator(ctx)
		names := []string{"h", "g", "f", "e", "d", "c", "b", "a"}
		for _, name := range names {
			Expect(create(ctx, o.namespace, named(name, "key"))).To(Succeed())
		}
		Eventually(lookedAfter(ctx, o.namespace)).WithContext(ctx).Should(HaveKeyWithValue("key", HaveLen(1)))
		owner := lookedAfter(ctx, o.namespace)(NewGomega(Fail))["key"][0]
		for _, name := range names {
			if name != owner {
				conflict(ctx, o, name, owner)
				Expect(missing[appsv1.StatefulSet](ctx, o.namespace, name)()).To(BeTrue())
			}
		}
	})

	It("stays with the younger one that has it, also over a restart of the operator, until that one gives it up", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, named("first", "a"))).To(Succeed())
		Expect(create(ctx, o.namespace, named("second", "b"))).To(Succeed())
		Eventually(lookedAfter(ctx, o.namespace)).WithContext(ctx).Should(Equal(map[string][]string{"a": {"first"}, "b": {"second"}}))
		Expect(patch(ctx, o.namespace, "first", `{spec: {api_key: {secret_name: b}}}`)).To(Succeed())
		conflict(ctx, o, "first", "second")
		Expect(lookedAfter(ctx, o.namespace)(NewGomega(Fail))).To(Equal(map[string][]string{"a": {"first"}, "b": {"second"}}))

		By("starting the operator again")
		o.stop()
		o = startOperatorIn(o.namespace)
		Eventually(o.passes.Load).WithContext(ctx).Should(BeNumerically(">", 0))
		o.touch(ctx, "second")
		o.touch(ctx, "first")
		Expect(lookedAfter(ctx, o.namespace)(NewGomega(Fail))).To(Equal(map[string][]string{"a": {"first"}, "b": {"second"}}))

		By("giving it up")
		Expect(patch(ctx, o.namespace, "second", `{spec: {api_key: {secret_name: c}}}`)).To(Succeed())
		Eventually(lookedAfter(ctx, o.namespace)).WithContext(ctx).Should(Equal(map[string][]string{"b": {"first"}, "c": {"second"}}))
	})

	It("stays with one that turned away, for as long as its sidecar has the rights", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, named("first", "a"))).To(Succeed())
		Eventually(lookedAfter(ctx, o.namespace)).WithContext(ctx).Should(Equal(map[string][]string{"a": {"first"}}))
		// What cannot be done leaves what runs as it is.
		Expect(patch(ctx, o.namespace, "first", `{spec: {version: v0.27.0, api_key: {secret_name: b}, config: {listen_addr: "0.0.0.0:9090"}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "first", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, ""))
		Expect(create(ctx, o.namespace, named("second", "a"))).To(Succeed())
		conflict(ctx, o, "second", "first")
		Expect(patch(ctx, o.namespace, "first", `{spec: {version: v0.29.3, config: {listen_addr: null}}}`)).To(Succeed())
		Eventually(lookedAfter(ctx, o.namespace)).WithContext(ctx).Should(Equal(map[string][]string{"a": {"second"}, "b": {"first"}}))
	})

	It("goes to the next one when the one that has it is deleted", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, named("first", "key"))).To(Succeed())
		Eventually(lookedAfter(ctx, o.namespace)).WithContext(ctx).Should(HaveKeyWithValue("key", []string{"first"}))
		Expect(create(ctx, o.namespace, named("second", "key"))).To(Succeed())
		conflict(ctx, o, "second", "first")
		Expect(admin.Delete(ctx, get[v1beta1.Headscale](ctx, o.namespace, "first")(NewGomega(Fail)))).To(Succeed())
		// The garbage collector's part, which does not run here.
		Expect(admin.Delete(ctx, get[appsv1.StatefulSet](ctx, o.namespace, "first")(NewGomega(Fail)))).To(Succeed())
		Expect(admin.Delete(ctx, get[rbacv1.Role](ctx, o.namespace, "first")(NewGomega(Fail)))).To(Succeed())
		Eventually(lookedAfter(ctx, o.namespace)).WithContext(ctx).Should(Equal(map[string][]string{"key": {"second"}}))
	})

	for how, leave := range map[string]func(ctx context.Context, namespace string) error{
		"is deleted": func(ctx context.Context, namespace string) error {
			return admin.Delete(ctx, get[v1beta1.Headscale](ctx, namespace, "first")(NewGomega(Fail)))
		},
		"turns to another": func(ctx context.Context, namespace string) error {
			return patch(ctx, namespace, "first", `{spec: {api_key: {secret_name: other}}}`)
		},
	} {
		It("goes to the next one when the one that never got rights on it "+how, func(ctx context.Context) {
			o := startOperator(ctx)
			Expect(create(ctx, o.namespace, named("first", "key")+"  secrets: {noise_private_key: {name: none, key: noise}}\n")).To(Succeed())
			Eventually(condition(ctx, o.namespace, "first", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "does not exist"))
			Expect(create(ctx, o.namespace, named("second", "key"))).To(Succeed())
			conflict(ctx, o, "second", "first")
			Expect(leave(ctx, o.namespace)).To(Succeed())
			Eventually(lookedAfter(ctx, o.namespace)).WithContext(ctx).Should(Equal(map[string][]string{"key": {"second"}}))
		})
	}

	It("is kept from a second sidecar that may write to it", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, named("first", "key"))).To(Succeed())
		Expect(create(ctx, o.namespace, named("second", "other"))).To(Succeed())
		Eventually(lookedAfter(ctx, o.namespace)).WithContext(ctx).Should(HaveLen(2))
		o.stop()
		By("being what an operator leaves that did not know better")
		role := get[rbacv1.Role](ctx, o.namespace, "second")(NewGomega(Fail))
		role.Rules[1].ResourceNames = []string{"key"}
		Expect(admin.Update(ctx, role)).To(Succeed())
		Expect(patch(ctx, o.namespace, "second", `{spec: {api_key: {secret_name: key}}}`)).To(Succeed())

		o = startOperatorIn(o.namespace)
		conflict(ctx, o, "second", "first")
		Eventually(missing[rbacv1.Role](ctx, o.namespace, "second")).WithContext(ctx).Should(BeTrue())
		Expect(missing[rbacv1.Role](ctx, o.namespace, "first")()).To(BeFalse())
	})
})
