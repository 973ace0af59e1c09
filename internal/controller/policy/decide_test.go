package policy

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/policy"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// digestOf is that of a text.
func digestOf(text string) string {
	document, err := policy.Parse(text)
	if err != nil {
		panic(err)
	}
	return document.Digest()
}

// object is a HeadscalePolicy that was made so many minutes after noon.
func object(name string, minute int, text string, change ...func(*v1beta1.HeadscalePolicy)) *v1beta1.HeadscalePolicy {
	made := &v1beta1.HeadscalePolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(noon.Add(time.Duration(minute) * time.Minute))},
		Spec:       v1beta1.HeadscalePolicySpec{HeadscaleRef: "headscale", HuJSON: text},
	}
	for _, c := range change {
		c(made)
	}
	return made
}

// applied is an object that is in force as it was with a text, in a policy.
func applied(own, whole string) func(*v1beta1.HeadscalePolicy) {
	return func(p *v1beta1.HeadscalePolicy) {
		p.Status.AppliedDigest, p.Status.PolicyDigest = digestOf(own), digestOf(whole)
	}
}

// corrected is an object of which so many changes by hand were reverted a time ago.
func corrected(times int32, ago time.Duration) func(*v1beta1.HeadscalePolicy) {
	return func(p *v1beta1.HeadscalePolicy) {
		at := metav1.NewTime(noon.Add(-ago))
		p.Status.Corrections, p.Status.CorrectedAt = times, &at
	}
}

func sent(p *v1beta1.HeadscalePolicy) { p.Status.SendingDigest = "x" }

// sendingOf is an object with which a policy was about to be sent.
func sendingOf(whole string) func(*v1beta1.HeadscalePolicy) {
	return func(p *v1beta1.HeadscalePolicy) { p.Status.SendingDigest = digestOf(whole) }
}

// isContested is an object that gives way, in an outage of its Headscale.
func isContested(p *v1beta1.HeadscalePolicy) {
	p.Status.Conditions = []metav1.Condition{
		{Type: v1beta1.ConditionReady, Reason: v1beta1.ReasonEndpointUnreachable},
		{Type: v1beta1.ConditionContested, Status: metav1.ConditionTrue, Reason: v1beta1.ReasonContested},
	}
}

// headscaleWith is a Headscale with a config.
func headscaleWith(config string) *v1beta1.Headscale {
	hs := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "headscale"}}
	if err := hs.Spec.Config.UnmarshalJSON([]byte(config)); err != nil {
		panic(err)
	}
	return hs
}

const (
	closed = `{"acls": []}`
	some   = `{"acls": [{"action": "accept", "src": ["a@"], "dst": ["*:1"]}]}`
	byHand = `{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}`
	groupA = `{"groups": {"group:g": ["a@"]}}`
	groupB = `{"groups": {"group:g": ["b@"]}}`
	open   = `{"groups": {"group:g": ["a@"]}, "acls": null}`
	both   = `{"groups": {"group:g": ["a@"]}, "acls": [{"action": "accept", "src": ["a@"], "dst": ["*:1"]}]}`
)

func TestDecide(t *testing.T) {
	unreachable := &instance.Problem{Because: v1beta1.ReasonEndpointUnreachable}
	refused := &refusal{digest: digestOf(some), until: noon.Add(time.Minute), problem: problem(v1beta1.ReasonRefused, "words")}
	elder := func(p *v1beta1.HeadscalePolicy) { p.CreationTimestamp = metav1.NewTime(noon.Add(-time.Hour)) }
	for name, test := range map[string]struct {
		policies []*v1beta1.HeadscalePolicy
		config   string
		problem  error
		inForce  string
		refused  *refusal
		sent     string

		action  action
		reasons map[string]string
		means   string
	}{
		"the first one is applied":                         {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some)}, action: apply, means: some},
		"one that replaces what was set by hand":           {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some)}, inForce: byHand, action: apply, means: some},
		"what is in force is left alone":                   {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some)}, inForce: some, action: keep},
		"formatting is no difference":                      {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some))}, inForce: "// x\n" + some + "\n", action: keep},
		"a change by hand is reverted":                     {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some))}, inForce: byHand, action: correct, means: some},
		"an empty policy by hand is reverted":              {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some))}, inForce: "", action: correct, means: some},
		"nonsense in force is reverted":                    {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some))}, inForce: "x", action: correct, means: some},
		"the second change by hand is reverted":            {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some), corrected(1, time.Minute))}, inForce: byHand, action: correct},
		"the third change by hand is contested":            {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some), corrected(2, time.Minute))}, inForce: byHand, action: keep, reasons: map[string]string{"a": v1beta1.ReasonContested}},
		"an empty policy is reverted a third time":         {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some), corrected(2, time.Minute))}, inForce: "", action: correct, means: some},
		"one without rules is reverted a third time":       {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some), corrected(2, time.Minute))}, inForce: groupA, action: correct, means: some},
		"an empty policy is reverted in a contest":         {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some), corrected(2, time.Minute), isContested)}, inForce: "{}", action: correct, means: some},
		"no rules give way to a third change by hand":      {policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA, applied(groupA, groupA), corrected(2, time.Minute))}, inForce: "{}", action: keep, reasons: map[string]string{"a": v1beta1.ReasonContested}},
		"another row after an hour":                        {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some), corrected(2, time.Hour))}, inForce: byHand, action: correct},
		"contested it stays":                               {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some), corrected(2, time.Hour), isContested)}, inForce: byHand, action: keep, reasons: map[string]string{"a": v1beta1.ReasonContested}},
		"contested it stays by any object that says so":    {policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA, applied(groupA, both)), object("b", 0, some, applied(some, both), corrected(2, time.Hour), isContested)}, inForce: byHand, action: keep, reasons: map[string]string{"a": v1beta1.ReasonContested, "b": v1beta1.ReasonContested}},
		"a changed object ends the contest":                {policies: []*v1beta1.HeadscalePolicy{object("a", 0, closed, applied(some, some), corrected(2, time.Minute), isContested)}, inForce: byHand, action: apply},
		"put back by hand ends the contest":                {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some), corrected(2, time.Minute), isContested)}, inForce: some, action: keep},
		"no rules any more would open":                     {policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA, applied(some, some))}, inForce: some, action: keep, reasons: map[string]string{"a": v1beta1.ReasonWouldAllowAll}},
		"null is no rules":                                 {policies: []*v1beta1.HeadscalePolicy{object("a", 0, open)}, inForce: closed, action: keep, reasons: map[string]string{"a": v1beta1.ReasonWouldAllowAll}},
		"the object with the rules was deleted":            {policies: []*v1beta1.HeadscalePolicy{object("b", 0, groupA, applied(groupA, `{"groups": {"group:g": ["a@"]}, "acls": []}`))}, inForce: `{"groups": {"group:g": ["a@"]}, "acls": []}`, action: keep, reasons: map[string]string{"b": v1beta1.ReasonWouldAllowAll}},
		"rules have a name in any case":                    {policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA)}, inForce: `{"ACLs": []}`, action: keep, reasons: map[string]string{"a": v1beta1.ReasonWouldAllowAll}},
		"the object with rules of another case is deleted": {policies: []*v1beta1.HeadscalePolicy{object("b", 0, groupA, applied(groupA, `{"groups": {"group:g": ["a@"]}, "ACLs": []}`))}, inForce: `{"groups": {"group:g": ["a@"]}, "ACLs": []}`, action: keep, reasons: map[string]string{"b": v1beta1.ReasonWouldAllowAll}},
		"rules have a name with _ and - as well":           {policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA)}, inForce: `{"ac_ls": []}`, action: keep, reasons: map[string]string{"a": v1beta1.ReasonWouldAllowAll}},
		"another spelling in force is no such section":     {policies: []*v1beta1.HeadscalePolicy{object("a", 0, `{"ac_ls": []}`, applied(closed, closed))}, inForce: `{"ac_ls": []}`, action: correct, means: closed},
		"two spellings are one section":                    {policies: []*v1beta1.HeadscalePolicy{object("a", 0, `{"ac_ls": [1]}`), object("b", 0, `{"acl-S": [2]}`)}, action: apply, means: `{"acls": [1, 2]}`},
		"sections of another spelling conflict":            {policies: []*v1beta1.HeadscalePolicy{object("a", 5, `{"gr_oups": {"group:g": ["b@"]}}`), object("b", 0, groupA)}, action: apply, means: groupA, reasons: map[string]string{"a": v1beta1.ReasonConflict}},
		"what cannot be read may have rules":               {policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA)}, inForce: "x", action: keep, reasons: map[string]string{"a": v1beta1.ReasonWouldAllowAll}},
		"no rules where there was nothing in it":           {policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA)}, inForce: "{}", action: apply, means: groupA},
		"no rules where there were none":                   {policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA)}, inForce: "", action: apply, means: groupA},
		"an explicit closing is applied":                   {policies: []*v1beta1.HeadscalePolicy{object("a", 0, closed, applied(some, some))}, inForce: some, action: apply, means: closed},
		"two are joined in their order":                    {policies: []*v1beta1.HeadscalePolicy{object("a", 1, some), object("b", 0, groupA)}, action: apply, means: `{"groups": {"group:g": ["a@"]}, "acls": [{"action": "accept", "src": ["a@"], "dst": ["*:1"]}]}`},
		"a new younger one that conflicts is left out":     {policies: []*v1beta1.HeadscalePolicy{object("a", 5, groupB), object("b", 0, groupA)}, action: apply, means: groupA, reasons: map[string]string{"a": v1beta1.ReasonConflict}},
		"sections of another case conflict":                {policies: []*v1beta1.HeadscalePolicy{object("a", 5, `{"Groups": {"group:g": ["b@"]}}`), object("b", 0, groupA)}, action: apply, means: groupA, reasons: map[string]string{"a": v1beta1.ReasonConflict}},
		"of the same age the name decides":                 {policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA), object("b", 0, groupB)}, action: apply, means: groupA, reasons: map[string]string{"b": v1beta1.ReasonConflict}},
		"a conflict among those in force holds all":        {policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA, applied(closed, some), elder), object("b", 0, groupB, applied(groupB, some))}, inForce: some, action: keep, reasons: map[string]string{"a": v1beta1.ReasonPolicyPending, "b": v1beta1.ReasonConflict}},
		"nonsense that never was in force is left out":     {policies: []*v1beta1.HeadscalePolicy{object("a", 0, "x"), object("b", 0, some)}, action: apply, means: some, reasons: map[string]string{"a": v1beta1.ReasonInvalidPolicy}},
		"nonsense of one in force holds all":               {policies: []*v1beta1.HeadscalePolicy{object("a", 0, "x", applied(closed, closed)), object("b", 0, some)}, inForce: closed, action: keep, reasons: map[string]string{"a": v1beta1.ReasonInvalidPolicy, "b": v1beta1.ReasonPolicyPending}},
		"with no policy in force the rest is better":       {policies: []*v1beta1.HeadscalePolicy{object("a", 0, "x", applied(closed, closed)), object("b", 0, some, applied(some, some))}, action: correct, means: some, reasons: map[string]string{"a": v1beta1.ReasonInvalidPolicy}},
		"with no rules in force the rest is better":        {policies: []*v1beta1.HeadscalePolicy{object("a", 0, "x", applied(closed, closed)), object("b", 0, some, applied(some, closed))}, inForce: groupB, action: apply, means: some, reasons: map[string]string{"a": v1beta1.ReasonInvalidPolicy}},
		"the rest without rules is not better":             {policies: []*v1beta1.HeadscalePolicy{object("a", 0, "x", applied(closed, closed)), object("b", 0, groupA, applied(groupA, closed))}, action: keep, reasons: map[string]string{"a": v1beta1.ReasonInvalidPolicy, "b": v1beta1.ReasonPolicyPending}},
		"nothing but nonsense":                             {policies: []*v1beta1.HeadscalePolicy{object("a", 0, "// none\n{}")}, inForce: some, action: keep, reasons: map[string]string{"a": v1beta1.ReasonInvalidPolicy}},
		"what was refused is not sent again":               {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some)}, inForce: closed, refused: refused, action: keep, reasons: map[string]string{"a": v1beta1.ReasonRefused}},
		"something else than what was refused is":          {policies: []*v1beta1.HeadscalePolicy{object("a", 0, byHand)}, inForce: closed, refused: refused, action: apply},
		"a refusal is not for ever":                        {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some)}, inForce: closed, refused: &refusal{digest: digestOf(some), until: noon}, action: apply},
		"another release may take it":                      {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some)}, inForce: closed, refused: &refusal{digest: digestOf(some), until: noon.Add(time.Minute), version: "v0.1"}, action: apply},
		"what was sent before an end is no change by hand": {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some), sendingOf(closed))}, inForce: closed, action: apply, means: some},
		"after an end in between it is sent again":         {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, sent)}, inForce: some, action: apply, means: some},
		"what some objects say was accepted is no drift":   {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(closed, closed)), object("b", 0, groupA, applied(groupA, both))}, inForce: closed, action: apply},
		"a note that went with its object is known":        {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(some, some))}, sent: "x", inForce: some, action: apply, means: some},
		"one that went while something is refused":         {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some)}, sent: "x", inForce: closed, refused: refused, action: restore, reasons: map[string]string{"a": v1beta1.ReasonRefused}},
		"after a refusal in between the old one is":        {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, sent)}, inForce: closed, refused: refused, action: restore, reasons: map[string]string{"a": v1beta1.ReasonRefused}},
		"an unanswered one that is stored is in force":     {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(closed, closed), sendingOf(some))}, inForce: some, action: keep, means: some},
		"an unanswered one that is not stored is sent":     {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(closed, closed), sendingOf(some))}, inForce: closed, action: apply, means: some},
		"one that is refused after it was stored is sent":  {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some, applied(closed, closed), sendingOf(some))}, inForce: some, refused: refused, action: restore, reasons: map[string]string{"a": v1beta1.ReasonRefused}},
		"an empty one is never sent":                       {policies: []*v1beta1.HeadscalePolicy{object("a", 0, "x", sent)}, inForce: " ", action: keep, reasons: map[string]string{"a": v1beta1.ReasonInvalidPolicy}},
		"mode file":                                        {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some)}, config: `{"policy": {"mode": "file"}}`, action: keep, reasons: map[string]string{"a": v1beta1.ReasonPolicyMode}},
		"no mode":                                          {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some)}, config: `{}`, action: keep, reasons: map[string]string{"a": v1beta1.ReasonPolicyMode}},
		"a Headscale that cannot be asked":                 {policies: []*v1beta1.HeadscalePolicy{object("a", 0, some), object("b", 0, "x")}, problem: unreachable, action: keep, reasons: map[string]string{"a": v1beta1.ReasonEndpointUnreachable, "b": v1beta1.ReasonEndpointUnreachable}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			config := test.config
			if config == "" {
				config = `{"policy": {"mode": "database"}}`
			}
			d := decide(&facts{headscale: headscaleWith(config), policies: test.policies, problem: test.problem, inForce: test.inForce, memory: memory{test.refused, test.sent}, now: noon})
			g.Expect(d.action).To(Equal(test.action), fmt.Sprint(d.problems))
			reasons := map[string]string{}
			for uid, err := range d.problems {
				reasons[string(uid)] = status.Classify(err).Reason
			}
			if test.reasons == nil {
				test.reasons = map[string]string{}
			}
			g.Expect(reasons).To(Equal(test.reasons))
			if test.means != "" {
				g.Expect(d.digest).To(Equal(digestOf(test.means)), d.text)
			}
		})
	}
}

// What was sent without an answer, and is stored, is no change by hand either once it is noted that another one is sent.
func TestDecideAfterTheNote(t *testing.T) {
	g := NewWithT(t)
	a := object("a", 0, some, applied(some, some), sendingOf(closed))
	f := &facts{headscale: headscaleWith(`{"policy": {"mode": "database"}}`), policies: []*v1beta1.HeadscalePolicy{a}, inForce: closed, now: noon}
	g.Expect(decide(f).action).To(Equal(apply))
	g.Expect(f.acceptedUnanswered()).To(Equal(digestOf(closed)))

	a.Status.PolicyDigest, a.Status.SendingDigest = f.acceptedUnanswered(), digestOf(some)
	g.Expect(decide(f).action).To(Equal(apply))
	g.Expect(f.acceptedUnanswered()).To(BeEmpty(), "it is not stored yet")
	f.inForce = "x"
	g.Expect(f.acceptedUnanswered()).To(BeEmpty())
}

// What is given way to is known after an outage, and is over when Headscale has the policy.
func TestAContestIsKeptInTheStatus(t *testing.T) {
	g := NewWithT(t)
	a := object("a", 0, some, applied(some, some), corrected(2, time.Minute))
	reconciled := func(at time.Time, problem error, inForce string) bool {
		f := &facts{headscale: headscaleWith(`{"policy": {"mode": "database"}}`), policies: []*v1beta1.HeadscalePolicy{a}, problem: problem, inForce: inForce, now: at}
		s := &scope{policies: f.policies, now: at, done: decide(f)}
		failed := status.Classify(s.done.problems["a"])
		describeStatus(&a.Status, s, a, readiness(s, a, failed), failed)
		return meta.IsStatusConditionTrue(a.Status.Conditions, v1beta1.ConditionContested)
	}
	g.Expect(reconciled(noon, nil, byHand)).To(BeTrue())
	contested := a.Status.DeepCopy()
	g.Expect(reconciled(noon.Add(time.Minute), nil, byHand)).To(BeTrue())
	g.Expect(a.Status).To(Equal(*contested), "nothing is written at rest")
	g.Expect(reconciled(noon.Add(2*time.Hour), &instance.Problem{Because: v1beta1.ReasonEndpointUnreachable}, "")).To(BeTrue())
	g.Expect(status.ReasonOf(a.Status.Conditions, v1beta1.ConditionReady)).To(Equal(v1beta1.ReasonEndpointUnreachable))
	g.Expect(reconciled(noon.Add(2*time.Hour), nil, byHand)).To(BeTrue())
	g.Expect(status.ReasonOf(a.Status.Conditions, v1beta1.ConditionReady)).To(Equal(v1beta1.ReasonContested))
	g.Expect(reconciled(noon.Add(2*time.Hour), nil, some)).To(BeFalse(), "set back by hand")
	g.Expect(status.ReasonOf(a.Status.Conditions, v1beta1.ConditionReady)).To(Equal(v1beta1.ReasonReady))
}

// That a change by hand was reverted is said once, also where the first object is not joined.
func TestACorrectionIsSaidOnce(t *testing.T) {
	g := NewWithT(t)
	f := &facts{headscale: headscaleWith(`{"policy": {"mode": "database"}}`), inForce: byHand, now: noon, policies: []*v1beta1.HeadscalePolicy{
		object("a", 0, "x"), object("b", 0, some, applied(some, both)), object("c", 0, groupA, applied(groupA, both)),
	}}
	s := &scope{policies: f.policies, now: noon, done: decide(f), corrected: true}
	g.Expect(s.done.action).To(Equal(correct))
	var said []string
	for _, object := range s.policies {
		before := object.Status.DeepCopy()
		failed := status.Classify(s.done.problems[object.UID])
		describeStatus(&object.Status, s, object, readiness(s, object, failed), failed)
		for _, event := range eventsOf(s, object, before, &object.Status) {
			if event.Reason == v1beta1.EventPolicyCorrected {
				said = append(said, object.Name)
			}
		}
	}
	g.Expect(said).To(Equal([]string{"b"}))
}

// Who changed what Headscale refuses is told its words; the others wait.
func TestBlame(t *testing.T) {
	g := NewWithT(t)
	both := `{"groups": {"group:g": ["a@"]}, "acls": []}`
	d := decide(&facts{
		headscale: headscaleWith(`{"policy": {"mode": "database"}}`), inForce: both, now: noon,
		policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA, applied(groupA, both)), object("b", 0, some, applied(closed, both))},
	})
	g.Expect(d.action).To(Equal(apply))
	d.blame(&refusal{problem: problem(v1beta1.ReasonRefused, "words")})
	g.Expect(d.problems["b"]).To(MatchError("words"))
	g.Expect(d.problems["a"]).To(MatchError(ContainSubstring("with HeadscalePolicy b as it is now")))

	// Where several have changed, the words may be about any of them.
	d = decide(&facts{
		headscale: headscaleWith(`{"policy": {"mode": "database"}}`), inForce: both, now: noon,
		policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA), object("b", 0, some), object("c", 0, closed)},
	})
	d.blame(&refusal{problem: problem(v1beta1.ReasonRefused, "words")})
	g.Expect(d.problems["a"]).To(MatchError("words; Headscale's message may be about HeadscalePolicy b, c, joined with this one and not accepted yet either"))
	g.Expect(d.problems["c"]).To(MatchError(ContainSubstring("about HeadscalePolicy a, b, joined")))
	d = decide(&facts{ // what a third one said is gone
		headscale: headscaleWith(`{"policy": {"mode": "database"}}`), inForce: byHand, now: noon,
		policies: []*v1beta1.HeadscalePolicy{object("a", 0, groupA, applied(groupA, both)), object("b", 0, some, applied(some, both))},
	})
	d.blame(&refusal{problem: problem(v1beta1.ReasonRefused, "words")})
	g.Expect(d.problems["a"]).To(MatchError("words; Headscale's message may be about HeadscalePolicy b, joined with this one"))
	d.blame(&refusal{problem: problem(v1beta1.ReasonTooLarge, "size")})
	g.Expect(d.problems["a"]).To(MatchError("size"))
}

// While nothing is sent, a change by hand stays, and that is said.
func TestAChangeByHandThatStaysIsNamed(t *testing.T) {
	both := `{"groups": {"group:g": ["a@"]}, "acls": []}`
	refused := &refusal{digest: digestOf(some), until: noon.Add(time.Minute), problem: problem(v1beta1.ReasonRefused, "words")}
	for name, test := range map[string]struct {
		policies []*v1beta1.HeadscalePolicy
		inForce  string
		named    bool
	}{
		"with one that is refused":          {[]*v1beta1.HeadscalePolicy{object("a", 0, some, applied(closed, closed))}, byHand, true},
		"with one that cannot be read":      {[]*v1beta1.HeadscalePolicy{object("a", 0, "x", applied(closed, closed))}, byHand, true},
		"with one that has no rules":        {[]*v1beta1.HeadscalePolicy{object("a", 0, groupA, applied(groupA, both))}, byHand, true},
		"not where it was accepted":         {[]*v1beta1.HeadscalePolicy{object("a", 0, some, applied(closed, closed))}, closed, false},
		"not where it is with comments":     {[]*v1beta1.HeadscalePolicy{object("a", 0, some, applied(closed, closed))}, "// x\n" + closed, false},
		"not where it may have been sent":   {[]*v1beta1.HeadscalePolicy{object("a", 0, some, applied(closed, closed), sendingOf(byHand))}, byHand, false},
		"not where none ever was accepted":  {[]*v1beta1.HeadscalePolicy{object("a", 0, some)}, byHand, false},
		"not where it is reverted":          {[]*v1beta1.HeadscalePolicy{object("a", 0, closed, applied(closed, closed))}, byHand, false},
		"not where it is contested already": {[]*v1beta1.HeadscalePolicy{object("a", 0, closed, applied(closed, closed), isContested)}, byHand, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := &scope{policies: test.policies, now: noon}
			s.done = decide(&facts{headscale: headscaleWith(`{"policy": {"mode": "database"}}`), policies: test.policies, inForce: test.inForce, memory: memory{refused: refused}, now: noon})
			message := readiness(s, test.policies[0], status.Classify(s.done.problems["a"])).Message
			if test.named {
				g.Expect(message).To(ContainSubstring("; what is in force is not what was accepted last: probably somebody else has set it"))
				g.Expect(message).To(ContainSubstring("kubectl headscale policy headscale -n default shows it"))
			} else {
				g.Expect(message).NotTo(ContainSubstring("somebody else has set it"))
			}
		})
	}
}

// While nothing is sent, a policy without rules stays open, and that is said.
func TestWhatAllowsEverythingIsNamed(t *testing.T) {
	refused := &refusal{digest: digestOf(some), until: noon.Add(time.Minute), problem: problem(v1beta1.ReasonRefused, "words")}
	for name, test := range map[string]struct {
		policies []*v1beta1.HeadscalePolicy
		inForce  string
		named    bool
	}{
		"one that cannot be read, with none in force":  {[]*v1beta1.HeadscalePolicy{object("a", 0, "x", applied(closed, closed))}, "", true},
		"one that cannot be read, with no rules":       {[]*v1beta1.HeadscalePolicy{object("a", 0, "x", applied(closed, closed))}, groupA, true},
		"one that is refused, with none in force":      {[]*v1beta1.HeadscalePolicy{object("a", 0, some)}, "", true},
		"one that is refused, with no rules":           {[]*v1beta1.HeadscalePolicy{object("a", 0, some)}, groupA, true},
		"not one that cannot be read, where rules are": {[]*v1beta1.HeadscalePolicy{object("a", 0, "x", applied(closed, closed))}, closed, false},
		"not one that is refused, where rules are":     {[]*v1beta1.HeadscalePolicy{object("a", 0, some)}, closed, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := &scope{policies: test.policies, now: noon}
			s.done = decide(&facts{headscale: headscaleWith(`{"policy": {"mode": "database"}}`), policies: test.policies, inForce: test.inForce, memory: memory{refused: refused}, now: noon})
			message := readiness(s, test.policies[0], status.Classify(s.done.problems["a"])).Message
			words := ContainSubstring("; what is in force now has no rules, and so allows everything, until a policy is accepted")
			if !test.named {
				words = Not(words)
			}
			g.Expect(message).To(words)
		})
	}
}

// A Headscale with a policy from a file has none in its database.
func TestFilesPolicyIsAConflict(t *testing.T) {
	hs := headscaleWith(`{}`)
	hs.Spec.Files.Policy = &v1beta1.FileReference{}
	d := decide(&facts{headscale: hs, policies: []*v1beta1.HeadscalePolicy{object("a", 0, some)}, now: noon})
	NewWithT(t).Expect(d.problems["a"]).To(MatchError(ContainSubstring("remove its spec.files.policy")))
}

// A variable of the container comes before the config.
func TestModeByAVariable(t *testing.T) {
	from := &corev1.EnvVarSource{}
	for name, test := range map[string]struct {
		config   string
		variable corev1.EnvVar
		problem  string
	}{
		"another one than the config has": {`{"policy": {"mode": "database"}}`, corev1.EnvVar{Name: "HEADSCALE_POLICY_MODE", Value: "file"}, "and remove HEADSCALE_POLICY_MODE from its spec.pod.env"},
		"an empty one is none":            {`{"policy": {"mode": "database"}}`, corev1.EnvVar{Name: "HEADSCALE_POLICY_MODE"}, ""},
		"one that the config has not":     {`{}`, corev1.EnvVar{Name: "HEADSCALE_POLICY_MODE", Value: "database"}, ""},
		"one that is not known":           {`{"policy": {"mode": "database"}}`, corev1.EnvVar{Name: "HEADSCALE_POLICY_MODE", ValueFrom: from}, ""},
		"one that is about another thing": {`{"policy": {"mode": "database"}}`, corev1.EnvVar{Name: "HEADSCALE_POLICY_PATH", Value: "file"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			hs := headscaleWith(test.config)
			hs.Spec.Pod.Env = []corev1.EnvVar{test.variable}
			err := checkMode(hs)
			if test.problem == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring(test.problem)))
		})
	}
}

// The conflict is reported to both, and names every place.
func TestConflictsAreNamedInBoth(t *testing.T) {
	g := NewWithT(t)
	d := decide(&facts{
		headscale: headscaleWith(`{"policy": {"mode": "database"}}`), now: noon,
		policies: []*v1beta1.HeadscalePolicy{object("old", 0, `{"hosts": {"a": "1", "b": "1"}}`), object("new", 1, `{"hosts": {"a": "2", "b": "2"}}`)},
	})
	g.Expect(d.problems["new"]).To(MatchError(ContainSubstring(`"hosts"."a" of HeadscalePolicy old, "hosts"."b" of HeadscalePolicy old`)))
	g.Expect(d.notes["old"]).To(ConsistOf(`HeadscalePolicy new, which is younger, says something else about "hosts"."a", "hosts"."b", and is not joined`))
}

// So it is where both were in force, and the conflict holds what is.
func TestConflictsAreNamedInBothWhereBothWereInForce(t *testing.T) {
	g := NewWithT(t)
	policies := []*v1beta1.HeadscalePolicy{object("old", 0, groupA, applied(closed, some)), object("new", 1, groupB, applied(groupB, some))}
	s := &scope{policies: policies, now: noon}
	s.done = decide(&facts{headscale: headscaleWith(`{"policy": {"mode": "database"}}`), now: noon, inForce: some, policies: policies})
	ready := readiness(s, policies[0], status.Classify(s.done.problems["old"]))
	g.Expect(ready.Reason).To(Equal(v1beta1.ReasonPolicyPending))
	g.Expect(ready.Message).To(ContainSubstring(`; HeadscalePolicy new, which is younger, says something else about "groups"."group:g", and is not joined`))
}
