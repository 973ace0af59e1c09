package plugin

import (
	"bytes"
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// userNamed is a HeadscaleUser that the operator has found in order.
func userNamed(name string, changes ...func(*v1beta1.HeadscaleUser)) *v1beta1.HeadscaleUser {
	created := at(-3 * day)
	user := &v1beta1.HeadscaleUser{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Generation: 2},
		Spec:       v1beta1.HeadscaleUserSpec{HeadscaleRef: "headscale", Username: name},
		Status: v1beta1.HeadscaleUserStatus{UserID: 7, CreatedAt: &created, ObservedGeneration: 2, Conditions: []metav1.Condition{
			condition(v1beta1.ConditionReady, true, v1beta1.ReasonReady, "User "+name+" (id 7) exists in Headscale"),
		}},
	}
	for _, change := range changes {
		change(user)
	}
	return user
}

// preAuthKeyNamed is a HeadscalePreAuthKey that the operator has found in order.
func preAuthKeyNamed(name string, changes ...func(*v1beta1.HeadscalePreAuthKey)) *v1beta1.HeadscalePreAuthKey {
	expiration, next := at(40*time.Minute), at(20*time.Minute)
	key := &v1beta1.HeadscalePreAuthKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Generation: 2},
		Spec: v1beta1.HeadscalePreAuthKeySpec{
			HeadscaleRef: "headscale", HeadscaleUserRef: "alice", Expiration: "1h", RevocationDelay: "0s", Reissue: v1beta1.ReissueAlways, SecretKey: "key",
		},
		Status: v1beta1.HeadscalePreAuthKeyStatus{KeyID: 5, Expiration: &expiration, NextRotation: &next, Used: 3, ObservedGeneration: 2, Conditions: []metav1.Condition{
			condition(v1beta1.ConditionReady, true, v1beta1.ReasonReady, "Pre-auth key 5 is in Secret "+name+", valid until 2026-11-27T12:40:00Z, and will be replaced at 2026-11-27T12:20:00Z"),
		}},
	}
	for _, change := range changes {
		change(key)
	}
	return key
}

// refused is an object that the operator found something wrong with.
func refused(reason, message string) []metav1.Condition {
	return []metav1.Condition{condition(v1beta1.ConditionReady, false, reason, message)}
}

// usersShown and preAuthKeysShown are objects in all states that are shown differently.
func usersShown() []shown {
	nodes := func(u *v1beta1.HeadscaleUser) {
		u.DeletionTimestamp, u.Status.Conditions = &deletedAt, refused("HasNodes", "User carol still has 1 node: laptop")
	}
	return asShown([]*userReport{
		describeUser(userNamed("alice"), now),
		describeUser(userNamed("bob", func(u *v1beta1.HeadscaleUser) {
			u.Spec.HeadscaleNamespace, u.Status = "tailnet", v1beta1.HeadscaleUserStatus{ObservedGeneration: -1}
		}), now),
		describeUser(userNamed("carol", nodes), now),
		describeUser(userNamed("dave", func(u *v1beta1.HeadscaleUser) {
			u.Status.Adopted, u.Status.Conditions[0].Message = true, "User dave exists"+v1beta1.WarningsIntro+"it existed before\x1b[2J"
		}), now),
		describeUser(userNamed("erin", func(u *v1beta1.HeadscaleUser) { u.Generation = 3 }), now),
	})
}

// deletedAt is when an object was deleted that is still there.
var deletedAt = at(0)

func preAuthKeysShown() []shown {
	id := int64(4)
	return asShown([]*preAuthKeyReport{
		describePreAuthKey(preAuthKeyNamed("web", func(k *v1beta1.HeadscalePreAuthKey) {
			k.Spec.Reusable, k.Spec.Ephemeral, k.Spec.SecretName = true, true, "web-key"
		}), now),
		describePreAuthKey(preAuthKeyNamed("tags", func(k *v1beta1.HeadscalePreAuthKey) {
			k.Spec.HeadscaleUserRef, k.Spec.Tags = "", []v1beta1.Tag{"tag:web", "tag:db"}
			k.Status.Conditions[0].Message += v1beta1.WarningsIntro + "the policy of Headscale does not know tag:db: add it to tagOwners"
		}), now),
		describePreAuthKey(preAuthKeyNamed("id", func(k *v1beta1.HeadscalePreAuthKey) {
			k.Spec.HeadscaleUserRef, k.Spec.UserID, k.Status = "", &id, v1beta1.HeadscalePreAuthKeyStatus{ObservedGeneration: 2, Conditions: refused(v1beta1.ReasonUserMissing, "Headscale has no user 4")}
		}), now),
		describePreAuthKey(preAuthKeyNamed("once", func(k *v1beta1.HeadscalePreAuthKey) {
			past := at(-time.Hour)
			k.Status.Expiration, k.Status.NextRotation = &past, nil
			k.Status.Conditions[0].Reason, k.Status.Conditions[0].Message = v1beta1.ReasonUsed, "The pre-auth key was used or has expired"
		}), now),
		describePreAuthKey(preAuthKeyNamed("late", func(k *v1beta1.HeadscalePreAuthKey) {
			past, late := at(-time.Hour), at(-80*time.Minute)
			k.Status.Expiration, k.Status.NextRotation = &past, &late
		}), now),
	})
}

func TestGoldenWithin(t *testing.T) {
	for kind, test := range map[string]struct {
		columns, wider []string
		reports        []shown
	}{
		"users":       {users.columns, users.wider, usersShown()},
		"preauthkeys": {preAuthKeys.columns, preAuthKeys.wider, preAuthKeysShown()},
	} {
		for name, s := range map[string]screen{"": pipe, "-posix": inPOSIX, "-coloured": coloured} {
			t.Run(kind+name, func(t *testing.T) {
				var out bytes.Buffer
				s.showObjects(&out, test.columns, test.reports, name == "", false, now)
				for _, report := range test.reports {
					out.WriteString("\n")
					s.showObject(&out, "Object", report, now)
				}
				golden(t, kind+name, out.String())
			})
		}
		t.Run(kind+"-wide", func(t *testing.T) {
			var out bytes.Buffer
			pipe.showObjects(&out, append(append([]string{}, test.columns...), test.wider...), test.reports, false, true, now)
			golden(t, kind+"-wide", out.String())
		})
		t.Run(kind+" for programs", func(t *testing.T) {
			for _, format := range formats {
				var out bytes.Buffer
				o := output(format)
				NewWithT(t).Expect(o.write(&out, list[shown]{Items: test.reports})).To(Succeed())
				golden(t, kind+"-"+format, out.String())
			}
		})
	}
}

func TestWhoIsReady(t *testing.T) {
	g := NewWithT(t)
	var ready []string
	for _, report := range append(usersShown(), preAuthKeysShown()...) {
		if report.object().Ready {
			ready = append(ready, report.object().Name)
		}
	}
	g.Expect(ready).To(ConsistOf("alice", "dave", "web", "tags", "once"))
}

// create creates an object and gives it its status.
func create(ctx context.Context, object client.Object) {
	GinkgoHelper()
	wanted, is := object.DeepCopyObject().(client.Object)
	Expect(is).To(BeTrue())
	Expect(admin.Create(ctx, object)).To(Succeed())
	wanted.SetResourceVersion(object.GetResourceVersion())
	Expect(admin.Status().Update(ctx, wanted)).To(Succeed())
}

var _ = DescribeTable("What exists within a Headscale",
	func(ctx SpecContext, command, kind, resource, first, second string, newObject func(name string) client.Object) {
		namespace := newNamespace(ctx)
		Expect(run(ctx, namespace, command)).To(Equal(result{"", "There is no " + kind + " in namespace " + namespace + "; -A shows those of all namespaces.\n", 0}))
		Expect(run(ctx, namespace, command, "-o", "json")).To(Equal(result{"{\n  \"items\": []\n}\n", "", 0}))
		for _, name := range []string{first, second} {
			object := newObject(name)
			object.SetNamespace(namespace)
			create(ctx, object)
			Expect(run(ctx, namespace, command, name)).To(And(HaveField("Status", 0), HaveField("Stdout", MatchRegexp("^"+kind+" +"+namespace+"/"+name+": Ready\n"))))
		}
		By("showing one as kubectl names it, several in a table, and those of all namespaces")
		for _, way := range []string{resource + "/" + first, resource + "." + v1beta1.GroupName + "/" + first} {
			Expect(run(ctx, namespace, command, way).Stdout).To(ContainSubstring(namespace + "/" + first))
		}
		Expect(run(ctx, namespace, command).Stdout).To(MatchRegexp(`(?s)^NAME +HEADSCALE .*\n` + first + ` .*\n` + second + ` `))
		Expect(run(ctx, namespace, command, "-A").Stdout).To(MatchRegexp(`(?s)^NAMESPACE +NAME .*` + namespace + ` +` + first + ` +headscale`))
		Expect(run(ctx, namespace, command, first, "-o", "yaml").Stdout).To(HavePrefix("conditions:\n"))
		Expect(run(ctx, namespace, command, first, "-o", "wide").Stdout).To(MatchRegexp(`^NAME +HEADSCALE .* (DELETION|SECRET) +STATE +PROBLEM\n` + first + ` `))
		Expect(run(ctx, namespace, command, "-o", "table")).To(And(HaveField("Status", ExitUsage), HaveField("Stderr", ContainSubstring("the formats are wide, json and yaml"))))

		By("completing names")
		Expect(run(ctx, namespace, "__complete", command, "")).To(HaveField("Stdout", first+"\n"+second+"\n:4\n"))
		Expect(run(ctx, namespace, "__complete", command, second[:2])).To(HaveField("Stdout", second+"\n:4\n"))
		Expect(run(ctx, namespace, "__complete", command, first, "")).To(HaveField("Stdout", ":4\n"))

		By("refusing what cannot be used")
		Expect(run(ctx, namespace, command, "absent")).To(Equal(result{"", "error: there is no " + kind + " \"absent\" in namespace " + namespace + "; kubectl get " + resource + " -A shows all that there are\n", ExitFailure}))
		Expect(run(ctx, namespace, command, "headscale/a")).To(And(HaveField("Status", ExitUsage), HaveField("Stderr", ContainSubstring(`"headscale/a" is not the NAME of a `+kind))))
		Expect(run(ctx, namespace, command, "a", "b")).To(And(HaveField("Status", ExitUsage), HaveField("Stderr", ContainSubstring("takes one NAME, and was given 2"))))
		Expect(run(ctx, namespace, command, "-A", "a")).To(And(HaveField("Status", ExitUsage), HaveField("Stderr", ContainSubstring("-A shows the "+kind+"s of all namespaces"))))

		By("saying which right is missing")
		config := person(ctx, namespace)
		Expect(as(ctx, config, command)).To(And(HaveField("Status", ExitFailure), HaveField("Stderr", MatchRegexp(`^error: you are not allowed to do this: .*cannot list resource "`+resource+`".*\n$`))))
		Expect(as(ctx, config, command, first)).To(And(HaveField("Status", ExitFailure), HaveField("Stderr", MatchRegexp(`^error: you are not allowed to do this: .*cannot get resource "`+resource+`".*\n$`))))
		Expect(as(ctx, config, "__complete", command, "")).To(HaveField("Stdout", ":4\n"))
	},
	Entry("is shown: users", "users", v1beta1.KindUser, "headscaleusers", "alice", "bob", func(name string) client.Object { return userNamed(name) }),
	Entry("is shown: pre-auth keys", "preauthkeys", v1beta1.KindPreAuthKey, "headscalepreauthkeys", "runner", "web", func(name string) client.Object {
		return preAuthKeyNamed(name, func(k *v1beta1.HeadscalePreAuthKey) {
			later := metav1.NewTime(time.Now().Add(time.Hour))
			k.Spec.DeletionPolicy, k.Status.Expiration = v1beta1.DeletionPolicyDelete, &later
		})
	}),
)

var _ = Describe("What exists within a Headscale", func() {
	It("is shown to a viewer, who reads no Secret, and gives the status 3 where it is not ready", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		config := person(ctx, namespace, "headscale-operator-headscaleuser-viewer-role", "headscale-operator-headscalepreauthkey-viewer-role")
		user := userNamed("alice", func(u *v1beta1.HeadscaleUser) {
			u.Namespace, u.Status.Conditions = namespace, refused(v1beta1.ReasonNoHeadscale, "There is no Headscale "+namespace+"/headscale")
		})
		create(ctx, user)
		Expect(as(ctx, config, "users")).To(And(HaveField("Status", ExitNotReady), HaveField("Stderr", ""),
			HaveField("Stdout", ContainSubstring("Problem        NoHeadscale: There is no Headscale "+namespace+"/headscale\n"))))
		Expect(as(ctx, config, "users", "alice", "-o", "json")).To(And(HaveField("Status", ExitNotReady), HaveField("Stdout", ContainSubstring(`"reason": "NoHeadscale"`))))
		Expect(as(ctx, config, "preauthkeys")).To(HaveField("Status", 0))
	})

	It("is not known to a cluster without the operator", func() {
		for command, kind := range map[string]string{"users": v1beta1.KindUser, "preauthkeys": v1beta1.KindPreAuthKey} {
			Expect(withoutKinds[command]).To(Equal(result{
				Stderr: "error: the cluster does not know the kind " + kind + " (headscale.infrado.cloud/v1beta1): install the operator, or a newer release of it, first\n",
				Status: ExitFailure,
			}))
		}
	})
})
