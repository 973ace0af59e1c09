package headscale

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/policy"
	"infrado.cloud/headscale-operator/internal/resources"
)

// A preflight tries the policy that Headscale accepted, and nothing else.
func TestAcceptedPolicy(t *testing.T) {
	const one, two = `{"groups": {"group:a": ["a@"]}}`, `{"acls": []}`
	digest := func(text string) string {
		document, err := policy.Parse(text)
		if err != nil {
			panic(err)
		}
		return document.Digest()
	}
	accepted := func(text, own, whole string) *v1beta1.HeadscalePolicy {
		return &v1beta1.HeadscalePolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "p-" + own[2:6]}, Spec: v1beta1.HeadscalePolicySpec{HuJSON: text},
			Status: v1beta1.HeadscalePolicyStatus{AppliedDigest: digest(own), PolicyDigest: digest(whole)},
		}
	}
	const both = `{"groups": {"group:a": ["a@"]}, "acls": []}`
	for name, test := range map[string]struct {
		objects []*v1beta1.HeadscalePolicy
		means   string
		unknown string
	}{
		"none":                    {},
		"one":                     {[]*v1beta1.HeadscalePolicy{accepted(two, two, two)}, two, ""},
		"two":                     {[]*v1beta1.HeadscalePolicy{accepted(one, one, both), accepted(two, two, both)}, both, ""},
		"one that has changed":    {[]*v1beta1.HeadscalePolicy{accepted(one, one, both), accepted(`{"acls": [1]}`, two, both)}, "", "HeadscalePolicy p-acls has changed, and that is not in force yet"},
		"one that was deleted":    {[]*v1beta1.HeadscalePolicy{accepted(one, one, both)}, "", "the HeadscalePolicies (p-grou) do not make the policy that Headscale has stored, as one was deleted"},
		"one that is nonsense":    {[]*v1beta1.HeadscalePolicy{accepted(`{`, one, one)}, "", "HeadscalePolicy p-grou has changed"},
		"two that are in dispute": {[]*v1beta1.HeadscalePolicy{accepted(one, one, one), accepted(`{"groups": {"group:a": []}}`, `{"groups": {"group:a": []}}`, one)}, "", "the HeadscalePolicies (p-grou, p-grou) do not make"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			stored := acceptedPolicy(&v1beta1.Headscale{}, test.objects)
			g.Expect(stored.unknown).To(HavePrefix(test.unknown))
			if test.unknown == "" {
				g.Expect(stored.unknown).To(BeEmpty())
			}
			if test.means == "" {
				g.Expect(stored.text).To(BeEmpty())
				return
			}
			g.Expect(digest(stored.text)).To(Equal(digest(test.means)))
		})
	}
}

// Of an upgrade, the policy is tried that the new release reads, if a ConfigMap holds it with the config.
func TestStoredPolicy(t *testing.T) {
	const text = `{"acls": []}`
	document, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	object := &v1beta1.HeadscalePolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"}, Spec: v1beta1.HeadscalePolicySpec{HeadscaleRef: "hs", HuJSON: text},
		Status: v1beta1.HeadscalePolicyStatus{AppliedDigest: document.Digest(), PolicyDigest: document.Digest()},
	}
	scheme := runtime.NewScheme()
	if err := v1beta1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	changed := object.DeepCopy()
	changed.Spec.HuJSON = `{"acls": [], "groups": {}}`
	never := changed.DeepCopy()
	never.Status = v1beta1.HeadscalePolicyStatus{}
	leaving := changed.DeepCopy()
	now := metav1.NewTime(time.Now())
	leaving.Name, leaving.DeletionTimestamp, leaving.Finalizers = "leaving", &now, []string{"example.com/mine"}
	whole := maxPreflightData - len(policy.Header("a", "hs")) - 1000
	for name, test := range map[string]struct {
		objects       []*v1beta1.HeadscalePolicy
		runs          string
		inFile        bool
		config        int
		text, unknown bool
	}{
		"an upgrade":                        {objects: []*v1beta1.HeadscalePolicy{object}, runs: "v0.28.0", text: true},
		"no upgrade":                        {objects: []*v1beta1.HeadscalePolicy{object}, runs: "v0.29.3"},
		"nothing ran before":                {objects: []*v1beta1.HeadscalePolicy{object}},
		"a release that reads a file":       {objects: []*v1beta1.HeadscalePolicy{changed}, runs: "v0.28.0", inFile: true},
		"one that has changed":              {objects: []*v1beta1.HeadscalePolicy{changed}, runs: "v0.28.0", unknown: true},
		"one that never was in force":       {objects: []*v1beta1.HeadscalePolicy{never}, runs: "v0.28.0"},
		"another that is being deleted":     {objects: []*v1beta1.HeadscalePolicy{object, leaving}, runs: "v0.28.0", text: true},
		"a config that leaves room for it":  {objects: []*v1beta1.HeadscalePolicy{object}, runs: "v0.28.0", config: whole, text: true},
		"a config that leaves none":         {objects: []*v1beta1.HeadscalePolicy{object}, runs: "v0.28.0", config: maxPreflightData - 1},
		"a config that leaves none, change": {objects: []*v1beta1.HeadscalePolicy{changed}, runs: "v0.28.0", config: maxPreflightData - 1, unknown: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			stored := fake.NewClientBuilder().WithScheme(scheme)
			for _, each := range test.objects {
				stored.WithObjects(each.DeepCopy())
			}
			s := scope{headscale: &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "hs"}}}
			s.headscale.Spec.Version, s.headscale.Status.Version = "v0.29.3", test.runs
			want := &resources.Objects{
				PolicyInDatabase: !test.inFile,
				ConfigMap:        corev1ac.ConfigMap("hs", "a").WithData(map[string]string{resources.ConfigFile: strings.Repeat("x", test.config)}),
			}
			got, err := (&Reconciler{Client: stored.Build()}).storedPolicy(context.Background(), s, want)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect([]bool{got.text != "", got.unknown != ""}).To(Equal([]bool{test.text, test.unknown}), "text, unknown: %s", got.unknown)
		})
	}
}
