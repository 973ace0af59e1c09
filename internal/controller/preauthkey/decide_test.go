package preauthkey

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/internal/rotation/rotationtest"
)

// textOf makes up the text of a key from 0.28 on.
func textOf(id string) headscale.Key {
	return headscale.NewKey(keyIntro + id + "-" + strings.Repeat("s", 64))
}

// kindOf are the keys of an object that wants one of a user.
func kindOf(change func(w *wanted)) rotationtest.Kind[headscale.PreAuthKey] {
	w := &wanted{key: headscale.NewPreAuthKey{UserID: 1, Tags: []string{"tag:web"}}}
	change(w)
	return rotationtest.Kind[headscale.PreAuthKey]{
		Rules: rules(w, nil), Text: func(id string) rotation.Text { return textOf(id) },
		Facts: headscale.PreAuthKey{ID: 7, UserID: 1, Tags: []string{"tag:web"}},
	}
}

func TestDecisionsOfAnyCredential(t *testing.T) {
	for _, row := range kindOf(func(*wanted) {}).Decisions() {
		t.Run(row.Name, func(t *testing.T) { checkDecision(t, row.View, row.Action, row.Reason) })
	}
}

func checkDecision(t *testing.T, v view, action rotation.Action, reason rotation.Reason) {
	t.Helper()
	g := NewWithT(t)
	decision := rotation.Decide(v)
	g.Expect(decision.Action).To(Equal(action), decision.Message)
	g.Expect(decision.Reason).To(Equal(reason), decision.Message)
	g.Expect(decision.Message).NotTo(Or(BeEmpty(), ContainSubstring(strings.Repeat("s", 64))))
}

func TestDecisionsOfPreAuthKeys(t *testing.T) {
	always, never := func(*wanted) {}, func(w *wanted) { w.once = true }
	facts := func(change func(*headscale.PreAuthKey)) func(*view) {
		return func(v *view) { change(&v.Credentials[0].Facts) }
	}
	isUsed := facts(func(k *headscale.PreAuthKey) { k.Used = true })
	due := kindOf(always).Due()
	for name, test := range map[string]struct {
		want   func(*wanted)
		change func(*view)
		action rotation.Action
		reason rotation.Reason
	}{
		"used":                        {always, isUsed, rotation.Create, reasonUsed},
		"used and reusable":           {func(w *wanted) { w.key.Reusable = true }, facts(func(k *headscale.PreAuthKey) { k.Used, k.Reusable = true, true }), rotation.None, rotation.ReasonUpToDate},
		"another user":                {always, facts(func(k *headscale.PreAuthKey) { k.UserID = 2 }), rotation.Create, reasonSpecChanged},
		"no user any more":            {always, facts(func(k *headscale.PreAuthKey) { k.UserID = 0 }), rotation.Create, reasonSpecChanged},
		"another tag":                 {always, facts(func(k *headscale.PreAuthKey) { k.Tags = []string{"tag:db"} }), rotation.Create, reasonSpecChanged},
		"no tag any more":             {always, facts(func(k *headscale.PreAuthKey) { k.Tags = nil }), rotation.Create, reasonSpecChanged},
		"the tag in capitals":         {always, facts(func(k *headscale.PreAuthKey) { k.Tags = []string{"tag:Web"} }), rotation.None, rotation.ReasonUpToDate},
		"reusable":                    {always, facts(func(k *headscale.PreAuthKey) { k.Reusable = true }), rotation.Create, reasonSpecChanged},
		"ephemeral":                   {always, facts(func(k *headscale.PreAuthKey) { k.Ephemeral = true }), rotation.Create, reasonSpecChanged},
		"due":                         {always, func(v *view) { v.Now = due }, rotation.Create, rotation.ReasonDue},
		"once, used":                  {never, isUsed, rotation.None, rotation.ReasonUpToDate},
		"once, due":                   {never, func(v *view) { v.Now = due }, rotation.None, rotation.ReasonUpToDate},
		"once, expired":               {never, func(v *view) { v.Now = due.Add(time.Hour) }, rotation.None, rotation.ReasonUpToDate},
		"once, used, and another tag": {never, facts(func(k *headscale.PreAuthKey) { k.Used, k.Tags = true, nil }), rotation.None, rotation.ReasonUpToDate},
		"once, and another tag":       {never, facts(func(k *headscale.PreAuthKey) { k.Tags = nil }), rotation.Create, reasonSpecChanged},
		"once, and deleted by hand":   {never, func(v *view) { v.Credentials = nil }, rotation.Create, rotation.ReasonKeyUnknown},
		"once, used, and no Secret":   {func(w *wanted) { w.once, w.over = true, true }, func(v *view) { v.Record = nil }, rotation.None, rotation.ReasonUpToDate},
		"once, not used, no Secret":   {never, func(v *view) { v.Record = nil }, rotation.Create, rotation.ReasonSecretMissing},
		"again always, and no Secret": {func(w *wanted) { w.over = true }, func(v *view) { v.Record = nil }, rotation.Create, rotation.ReasonSecretMissing},
	} {
		t.Run(name, func(t *testing.T) {
			v := kindOf(test.want).GoodView()
			test.change(&v)
			checkDecision(t, v, test.action, test.reason)
		})
	}
}

func TestAnotherObjectsKeyIsForeign(t *testing.T) {
	kind := kindOf(func(*wanted) {})
	kind.Rules.Foreign = func(c credential) bool { return c.Facts.ID == 8 }
	v := kind.GoodView()
	v.Credentials = append(v.Credentials, credential{ID: rotationtest.OtherID, Expiration: v.Credentials[0].Expiration.Add(time.Second), Facts: headscale.PreAuthKey{ID: 8}})
	checkDecision(t, v, rotation.None, rotation.ReasonUpToDate)
}

func TestAStrangersKeyIsNotExpired(t *testing.T) {
	g := NewWithT(t)
	v := kindOf(func(*wanted) {}).GoodView()
	v.Record.Retiring = []rotation.RetiringEntry{{ID: rotationtest.OtherID, NotBefore: v.Now}}
	v.Credentials = append(v.Credentials, credential{ID: rotationtest.OtherID, Expiration: v.Now.Add(time.Hour)})
	decision := rotation.Decide(v)
	g.Expect(decision.Expire).To(BeEmpty())
	g.Expect(decision.Record.Retiring).To(BeEmpty(), "the entry is dropped")
}

func TestIDs(t *testing.T) {
	g := NewWithT(t)
	legacy := headscale.NewKey(strings.Repeat("0123456789abcdef", 3))
	g.Expect(idOf(textOf("a-b_c-d_e-f_"))).To(Equal("a-b_c-d_e-f_"))
	g.Expect(idOf(headscale.NewKey("hskey-auth-a-b_c-d_e-f_-***"))).To(Equal("a-b_c-d_e-f_"), "as it is listed")
	g.Expect(idOf(legacy)).To(And(HavePrefix("sha256-"), Not(ContainSubstring("0123456789"))))
	g.Expect(idOf(headscale.Key{})).To(BeEmpty())
	for _, key := range []headscale.Key{textOf("abcdefghijkl"), legacy} {
		g.Expect(idOf(key)).NotTo(MatchRegexp("[,@]"))
	}
}

func TestTagsOfOneFraction(t *testing.T) {
	g := NewWithT(t)
	older := object("web", "1")
	younger := object("web", "2")
	younger.CreationTimestamp = metav1.NewTime(older.CreationTimestamp.Add(time.Second))
	same := []*v1beta1.HeadscalePreAuthKey{older, younger}
	g.Expect(tagOf(older, same)).To(Equal(firstTag(older).After(secondTag(older))))
	g.Expect(tagOf(younger, same)).To(Equal(secondTag(younger)))
	g.Expect(secondTag(younger)).NotTo(Equal(firstTag(younger)))
	g.Expect(tagOf(younger, same[1:]).OwnedBefore(secondTag(younger).Expiration(rotationtest.Noon))).To(BeTrue(), "when it is the oldest, its key is still its own")
}

// object is a HeadscalePreAuthKey.
func object(name, uid string) *v1beta1.HeadscalePreAuthKey {
	return &v1beta1.HeadscalePreAuthKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name, UID: types.UID(uid), CreationTimestamp: metav1.NewTime(rotationtest.Noon)},
		Spec: v1beta1.HeadscalePreAuthKeySpec{
			HeadscaleRef: "headscale", HeadscaleUserRef: "alice", Expiration: "1h", RevocationDelay: "0s", Reissue: v1beta1.ReissueAlways,
			SecretKey: "key", DeletionPolicy: v1beta1.DeletionPolicyDelete,
		},
	}
}

func TestResolve(t *testing.T) {
	created := metav1.NewTime(rotationtest.Noon)
	user := func() *v1beta1.HeadscaleUser {
		return &v1beta1.HeadscaleUser{
			Spec:   v1beta1.HeadscaleUserSpec{HeadscaleRef: "headscale", HeadscaleNamespace: "team"},
			Status: v1beta1.HeadscaleUserStatus{UserID: 1, CreatedAt: &created},
		}
	}
	snapshot := instance.NewSnapshot(headscale.User{ID: 1, Name: "alice", CreatedAt: rotationtest.Noon})
	for name, test := range map[string]struct {
		change func(f *facts)
		user   uint64
		reason string
	}{
		"a HeadscaleUser":                      {func(*facts) {}, 1, ""},
		"no HeadscaleUser":                     {func(f *facts) { f.user = nil }, 0, v1beta1.ReasonUserMissing},
		"one of another Headscale":             {func(f *facts) { f.user.Spec.HeadscaleRef = "other" }, 0, v1beta1.ReasonConflict},
		"one of another namespace's Headscale": {func(f *facts) { f.user.Spec.HeadscaleNamespace = "other" }, 0, v1beta1.ReasonConflict},
		"one that is being deleted":            {func(f *facts) { f.user.DeletionTimestamp = &created }, 0, v1beta1.ReasonUserMissing},
		"one without a user yet":               {func(f *facts) { f.user.Status.UserID = 0 }, 0, v1beta1.ReasonUserMissing},
		"one whose user is gone":               {func(f *facts) { f.user.Status.UserID = 2 }, 0, v1beta1.ReasonUserMissing},
		"one whose id another user has": {func(f *facts) {
			later := metav1.NewTime(rotationtest.Noon.Add(time.Hour))
			f.user.Status.CreatedAt = &later
		}, 0, v1beta1.ReasonUserMissing},
		"an id":                      {func(f *facts) { f.key.Spec.HeadscaleUserRef, f.key.Spec.UserID = "", ptr.To(int64(1)) }, 1, ""},
		"an id that nobody has":      {func(f *facts) { f.key.Spec.HeadscaleUserRef, f.key.Spec.UserID = "", ptr.To(int64(9)) }, 0, v1beta1.ReasonUserMissing},
		"an id elsewhere":            {func(f *facts) { f.key.Spec.UserID, f.key.Spec.HeadscaleNamespace = ptr.To(int64(1)), "other" }, 0, v1beta1.ReasonNotAllowed},
		"tags only":                  {func(f *facts) { f.key.Spec.HeadscaleUserRef, f.key.Spec.Tags = "", []v1beta1.Tag{"tag:a"} }, 0, ""},
		"tags only, of 0.27":         {func(f *facts) { f.key.Spec.HeadscaleUserRef, f.version = "", "v0.27.1" }, 0, v1beta1.ReasonUnsupported},
		"tags only, of an unknown":   {func(f *facts) { f.key.Spec.HeadscaleUserRef, f.version = "", "main" }, 0, ""},
		"an expiration that is none": {func(f *facts) { f.key.Spec.Expiration = "soon" }, 0, v1beta1.ReasonInvalidConfig},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			f := &facts{key: object("web", "1"), user: user(), snapshot: snapshot, version: "v0.28.0"}
			test.change(f)
			got, err := f.resolve()
			if test.reason != "" {
				g.Expect(err).To(HaveOccurred())
				g.Expect(status.Classify(err).Reason).To(Equal(test.reason))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got.key.UserID).To(Equal(test.user))
			g.Expect(got.settings).To(Equal(rotation.Settings{Expiration: time.Hour, RotationBuffer: 20 * time.Minute}))
		})
	}
}

func TestRecord(t *testing.T) {
	ours := map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentPreAuthKey}
	for name, test := range map[string]struct {
		change  func(*corev1.Secret)
		foreign string
	}{
		"ours":                       {func(*corev1.Secret) {}, ""},
		"without labels":             {func(s *corev1.Secret) { s.Labels = nil }, "does not belong to this HeadscalePreAuthKey"},
		"of an API key":              {func(s *corev1.Secret) { s.Labels[v1beta1.LabelComponent] = v1beta1.ComponentAPIKey }, "does not belong to this HeadscalePreAuthKey"},
		"of another object":          {func(s *corev1.Secret) { s.Annotations[v1beta1.AnnotationPreAuthKeyObject] = "db" }, "belongs to HeadscalePreAuthKey db"},
		"without its ledger":         {func(s *corev1.Secret) { s.Annotations = nil }, ""},
		"of another controller":      {func(s *corev1.Secret) { s.OwnerReferences[0].Kind, s.OwnerReferences[0].UID = "ExternalSecret", "x" }, "belongs to ExternalSecret web"},
		"of a former object":         {func(s *corev1.Secret) { s.OwnerReferences[0].UID = "former" }, ""},
		"with the entry taken":       {func(s *corev1.Secret) { s.Annotations[v1beta1.AnnotationPreAuthKeyEntry] = "other" }, "has an entry key already"},
		"of a former name of entry":  {func(s *corev1.Secret) { moveEntry(s, "other") }, ""},
		"with an entry of Tailscale": {func(s *corev1.Secret) { s.Data["profile-1"] = []byte("x") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			key := object("web", "1")
			record := rotation.Record{Text: textOf("abcdefghijkl"), ID: "abcdefghijkl", Digest: rotation.DigestOf(textOf("abcdefghijkl"))}
			secret := writeRecord(key, record, &corev1.Secret{})
			g.Expect(secret.Labels).To(Equal(ours))
			g.Expect(readRecord(key, secret).Regular).To(BeTrue())
			test.change(secret)
			read := readRecord(key, secret)
			g.Expect(read.Ours).To(Equal(test.foreign == ""))
			g.Expect(foreignBecause(key, secret)).To(ContainSubstring(test.foreign))
			if !read.Ours {
				return
			}
			g.Expect(read.Text).To(Equal(textOf("abcdefghijkl")))
			written := writeRecord(key, read, secret)
			g.Expect(readRecord(key, written).Regular).To(BeTrue())
			g.Expect(written.Data["profile-1"]).To(Equal(secret.Data["profile-1"]))
			g.Expect(written.Data).To(HaveKey("key"))
			g.Expect(written.Data).NotTo(HaveKey("other"))
			g.Expect(written.OwnerReferences).To(HaveLen(map[bool]int{true: 0, false: 1}[len(secret.Data) > 1]))
			left := withoutKey(key, written)
			g.Expect(left.Labels).To(BeEmpty())
			g.Expect(left.Annotations).To(BeEmpty())
			g.Expect(left.Data).To(HaveLen(len(secret.Data) - 1))
		})
	}
}

// moveEntry has a Secret hold the key in another entry.
func moveEntry(secret *corev1.Secret, to string) {
	secret.Annotations[v1beta1.AnnotationPreAuthKeyEntry] = to
	secret.Data = map[string][]byte{to: secret.Data["key"]}
}

func TestTemplate(t *testing.T) {
	g := NewWithT(t)
	key := object("web", "1")
	key.Spec.SecretTemplate = v1beta1.SecretTemplate{Labels: map[string]v1beta1.LabelValue{"app": "web"}, Annotations: map[string]v1beta1.AnnotationValue{"note": "x"}}
	secret := writeRecord(key, rotation.Record{}, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"theirs": "1"}, Annotations: map[string]string{"theirs": "1"}}})
	g.Expect(secret.Labels).To(And(HaveKeyWithValue("app", "web"), HaveKeyWithValue("theirs", "1")))
	left := withoutKey(key, secret)
	g.Expect(left.Labels).To(Equal(map[string]string{"theirs": "1"}))
	g.Expect(left.Annotations).To(Equal(map[string]string{"theirs": "1"}))
	key.Spec.SecretTemplate = v1beta1.SecretTemplate{}
	g.Expect(readRecord(key, secret).Regular).To(BeFalse())
	secret = writeRecord(key, rotation.Record{}, secret)
	g.Expect(secret.Labels).To(And(Not(HaveKey("app")), HaveKeyWithValue("theirs", "1"), HaveKeyWithValue(v1beta1.LabelManagedBy, v1beta1.ManagedBy)))
	g.Expect(secret.Annotations).To(And(Not(HaveKey("note")), HaveKeyWithValue("theirs", "1")))
}

func TestUnknownTags(t *testing.T) {
	for name, test := range map[string]struct{ policy, unknown string }{
		"none":                    {"", ""},
		"a policy that is none":   {"{", ""},
		"a list":                  {"[]", ""},
		"an empty one":            {"{}", ""},
		"without tagOwners":       {`{"acls": []}`, "tag:a, tag:b"},
		"with none":               {`{"tagOwners": null}`, "tag:a, tag:b"},
		"in another spelling":     {`{"Tag_Owners": {"tag:a": []}}`, "tag:b"},
		"with one":                {`{"tagOwners": {"tag:A": []}}`, "tag:b"},
		"with both":               {`{"tagOwners": {"tag:a": [], "tag:b": ["x@"]}}`, ""},
		"with comments":           {"// a \"policy\"\n{ /* } */ \"tagOwners\": {\"tag:a\": [\"a@\",], // x\n \"tag:b\": [],\n},}", ""},
		"with // inside a string": {`{"hosts": {"h": "http://x"}, "tagOwners": {"tag:a": ["\"//"]}}`, "tag:b"},
		"cut off in a comment":    {`{"tagOwners": {}} /*`, ""},
		"cut off in a string":     {`{"tagOwners`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got := unknownTags([]string{"tag:a", "tag:b"}, test.policy)
			if test.unknown == "" {
				g.Expect(got).To(BeEmpty())
				return
			}
			g.Expect(got).To(Equal("; but the policy of Headscale does not know " + test.unknown + ": add it to tagOwners"))
		})
	}
}

func TestWhatALargePolicyCosts(t *testing.T) {
	g := NewWithT(t)
	large := `{"tagOwners": {"tag:a": []}, "hosts": [` + strings.Repeat("[0,],", 200_000) + `]}`
	g.Expect(unknownTags(nil, `{"tagOwners": {}}`)).To(BeEmpty(), "without tags it is not read at all")
	began := time.Now()
	g.Expect(unknownTags([]string{"tag:b"}, large)).To(ContainSubstring("tag:b"))
	g.Expect(time.Since(began)).To(BeNumerically("<", 5*time.Second), "every comma has its cost, and not that of the whole text")
}

func TestAKeyThatIsAnotherOne(t *testing.T) {
	g := NewWithT(t)
	expiration := rotationtest.Noon
	snapshot := func(text headscale.Key) *instance.Snapshot {
		return instance.NewSnapshot().WithKeys(headscale.PreAuthKey{ID: 7, Key: text, Expiration: &expiration})
	}
	whole, listed := textOf("abcdefghijkl"), headscale.NewKey(keyIntro+"abcdefghijkl-***")
	g.Expect(keyDiffers(7, snapshot(whole), snapshot(listed))).To(BeFalse(), "as it was made, and as it is listed")
	g.Expect(keyDiffers(7, snapshot(listed), snapshot(textOf("lkjihgfedcba")))).To(BeTrue(), "another one of the same number, after a restore")
}

func TestWhomAChangeByTheOperatorConcerns(t *testing.T) {
	id := int64(7)
	plain, tagged, byID := &v1beta1.HeadscalePreAuthKey{}, &v1beta1.HeadscalePreAuthKey{}, &v1beta1.HeadscalePreAuthKey{}
	tagged.Spec.Tags, byID.Spec.UserID = []v1beta1.Tag{"tag:a"}, &id
	for name, test := range map[string]struct {
		changes             instance.Changes
		plain, tagged, byID bool
	}{
		"another policy": {instance.Changes{Policy: true}, false, true, false},
		"the user":       {instance.Changes{Users: []uint64{6, 7}}, false, false, true},
		"another user":   {instance.Changes{Users: []uint64{8}}, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(concerns(plain, test.changes)).To(Equal(test.plain))
			g.Expect(concerns(tagged, test.changes)).To(Equal(test.tagged))
			g.Expect(concerns(byID, test.changes)).To(Equal(test.byID))
		})
	}
}
