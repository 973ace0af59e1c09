package preauthkeys_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/nodetest"
)

// user is the id of the object's user; 0: not known yet.
func (k *object) user(ctx context.Context) (uint64, error) {
	user := &v1beta1.HeadscaleUser{}
	err := admin.Get(ctx, k.key(), user)
	return user.Status.UserID, err
}

// keys are all keys of the object's user that Headscale has.
func (k *object) keys(ctx context.Context) ([]headscale.PreAuthKey, error) {
	user, err := k.user(ctx)
	if err != nil || user == 0 {
		return nil, err
	}
	keys, err := k.t.direct.ListPreAuthKeys(ctx, []uint64{user})
	return slices.DeleteFunc(keys, func(key headscale.PreAuthKey) bool { return key.UserID != user }), err
}

// valid are those that can be used.
func (k *object) valid(ctx context.Context) ([]headscale.PreAuthKey, error) {
	keys, err := k.keys(ctx)
	return slices.DeleteFunc(keys, func(key headscale.PreAuthKey) bool {
		return !key.Expiration.After(time.Now()) || key.Used && !key.Reusable
	}), err
}

// publicPart is what a list shows of a key from Headscale 0.28 on; before, it is the whole key.
func publicPart(text string) string {
	const length = len("hskey-auth-") + 12
	if strings.HasPrefix(text, "hskey-auth-") && len(text) > length {
		return text[:length]
	}
	return text
}

// unrest is what keeps an object from being at rest; "" where it is: exactly one key of it can be
// used, that is the one in the Secret, it is the id of that one which the status has, and nothing else
// is to be done. A request and another spec change no key until an operator has seen them.
func (k *object) unrest(ctx context.Context) (string, error) {
	valid, err := k.valid(ctx)
	if err != nil {
		return "", err
	}
	secret, err := k.secret(ctx)
	if client.IgnoreNotFound(err) != nil {
		return "", err
	}
	notes, resource := secret.Annotations, k.resource(ctx)
	switch {
	case len(valid) != 1:
		return fmt.Sprintf("%d keys can be used", len(valid)), nil
	case publicPart(valid[0].Key.Reveal()) != publicPart(string(secret.Data["key"])):
		return "the Secret holds another key", nil
	case resource.Status.KeyID != valid[0].ID:
		return "the status has another id", nil
	case notes[v1beta1.AnnotationPreAuthKeyRequested] != notes[v1beta1.AnnotationPreAuthKeyHandled]:
		return "another key was requested, and not made", nil
	case notes[v1beta1.AnnotationPreAuthKeyRetiring] != "":
		return "a key is retiring", nil
	case resource.Status.ObservedGeneration != resource.Generation:
		return "the spec was not seen yet", nil
	case !meta.IsStatusConditionTrue(resource.Status.Conditions, v1beta1.ConditionReady):
		return "it is not ready", nil
	default:
		return "", nil
	}
}

// heals waits for rest, and returns the key in the Secret and how long it took.
func (k *object) heals(ctx context.Context) (key string, took time.Duration) {
	GinkgoHelper()
	began := time.Now()
	Eventually(k.unrest).WithContext(ctx).WithArguments(ctx).Should(BeEmpty(), k.t.version+": "+k.name)
	took = time.Since(began)
	key, err := k.stored(ctx)
	Expect(err).NotTo(HaveOccurred())
	return key, took
}

// healsFrom waits for rest with another key than before, and returns it.
func (k *object) healsFrom(ctx context.Context, before string) (key string, took time.Duration) {
	GinkgoHelper()
	began := time.Now()
	Eventually(func(g Gomega) {
		stored, err := k.stored(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(stored).NotTo(Or(BeEmpty(), Equal(before)))
		g.Expect(k.unrest(ctx)).To(BeEmpty())
		key = stored
	}).WithContext(ctx).Should(Succeed(), k.t.version+": "+k.name)
	return key, time.Since(began)
}

// opens registers a node with the key in the Secret.
func (k *object) opens(ctx context.Context) {
	GinkgoHelper()
	stored, err := k.stored(ctx)
	Expect(err).NotTo(HaveOccurred())
	Expect(nodetest.Register(ctx, k.t.server.URL(), stored)).To(BeTrue(), k.t.version+": "+k.name)
}

// seen adds to the report what a row of docs/reliability-preauthkeys.md tells of.
func seen(failure, version string, facts ...any) {
	GinkgoHelper()
	AddReportEntry(failure+", "+version, fmt.Sprintln(facts...), ReportEntryVisibilityFailureOrVerbose)
}
