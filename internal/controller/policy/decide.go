package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/policy"
	"infrado.cloud/headscale-operator/internal/resources"
)

const (
	// mostCorrections is how many changes by hand are reverted in a row. The next one stays.
	mostCorrections = 2
	// rowEnds is how long after a change by hand was reverted the next one begins another row.
	rowEnds = time.Hour
	// mostNamed is how many objects, places or sections a message names.
	mostNamed = 10
)

// facts are all that a decision depends on.
type facts struct {
	// headscale is the Headscale; nil where problem says that there is none.
	headscale *v1beta1.Headscale
	// policies are its HeadscalePolicies in their order, without those that are being deleted.
	policies []*v1beta1.HeadscalePolicy
	// problem is why Headscale cannot be asked; nil: it was.
	problem error
	// inForce is the policy that Headscale has; "": none.
	inForce string
	// memory is what is known of Headscale besides that.
	memory memory
	now    time.Time
}

// refusal is that Headscale refused a policy.
type refusal struct {
	digest, version string
	problem         *instance.Problem
	// read is whether Headscale looked at it.
	read bool
	// until is when it is tried again: what it refuses may depend on what else it has.
	until time.Time
}

// action is what is to be done.
type action string

const (
	// keep leaves Headscale as it is.
	keep action = "keep"
	// apply sends the joined policy.
	apply action = "apply"
	// correct sends it, too: somebody else has changed what Headscale has.
	correct action = "correct"
	// restore sends what Headscale has stored: it may have something else in memory.
	restore action = "restore"
)

// decision is what follows from the facts.
type decision struct {
	action action
	// text is the joined policy, and digest that of its meaning.
	text, digest string
	// joined are the objects that it is joined from.
	joined []*v1beta1.HeadscalePolicy
	// digests are those of what each object says.
	digests map[types.UID]string
	// problems are why objects are not in force.
	problems map[types.UID]error
	// notes are what is probably not meant by an object that is in force.
	notes map[types.UID][]string
	// sections are those in which the policies differ.
	sections []string
	// inForce is whether Headscale has the joined policy, stored and in memory.
	inForce bool
	// foreign says that what is in force, and stays, was set by somebody else, or allows everything; "": it does not.
	foreign string
}

// decide says what is to be done for the HeadscalePolicies of a Headscale.
func decide(f *facts) *decision {
	d := &decision{action: keep, digests: map[types.UID]string{}, problems: map[types.UID]error{}, notes: map[types.UID][]string{}}
	problem := f.problem
	if problem == nil {
		problem = checkMode(f.headscale)
	}
	if problem != nil {
		d.refuseAll(f.policies, problem)
		return d
	}
	accepted := d.dropConflicting(f.policies, d.parse(f.policies))
	if len(accepted) == 0 || !closes(f.inForce, accepted) && d.held(f.policies) {
		return d.stay(f)
	}
	return d.compare(f, accepted)
}

// closes reports whether parts have rules where what is in force has none, which allows everything. Then they
// are sent also without an object that was in force: nothing that was in force could stay.
func closes(inForce string, parts []policy.Part) bool {
	return !policy.MayHaveRules(inForce) && slices.ContainsFunc(parts, func(part policy.Part) bool { return !part.AllowsAll() })
}

// parse reads what the objects say. Those that say nothing that could be joined have a problem.
func (d *decision) parse(policies []*v1beta1.HeadscalePolicy) []policy.Part {
	var parts []policy.Part
	for _, object := range policies {
		document, err := policy.Parse(object.Text())
		if err != nil {
			d.problems[object.UID] = problem(v1beta1.ReasonInvalidPolicy, "spec.%s cannot be used: %v", fieldOf(object), err)
			continue
		}
		d.digests[object.UID] = document.Digest()
		d.noteMisspelled(object, document)
		parts = append(parts, policy.Part{Source: policy.SourceOf(object.Name), Created: object.CreationTimestamp.Time, Document: document})
	}
	return parts
}

// fieldOf is the field in which an object says what it says.
func fieldOf(object *v1beta1.HeadscalePolicy) string {
	if object.Spec.Policy != nil {
		return "policy"
	}
	return "hujson"
}

// noteMisspelled notes which sections of an object have another name.
func (d *decision) noteMisspelled(object *v1beta1.HeadscalePolicy, document *policy.Document) {
	misspelled := document.Misspelled()
	for _, section := range slices.Sorted(maps.Keys(misspelled)) {
		d.notes[object.UID] = append(d.notes[object.UID], fmt.Sprintf("the section %q is probably meant to be %s: Headscale ignores or refuses what it does not know", section, misspelled[section]))
	}
}

// dropConflicting returns the parts that can be joined. Of two that conflict, the younger cannot, and
// both objects are told.
func (d *decision) dropConflicting(policies []*v1beta1.HeadscalePolicy, parts []policy.Part) []policy.Part {
	kept, conflicts := policy.Select(parts)
	bySource := map[string][]policy.Conflict{}
	for _, conflict := range conflicts {
		bySource[conflict.Source] = append(bySource[conflict.Source], conflict)
	}
	for _, source := range slices.Sorted(maps.Keys(bySource)) {
		for _, object := range policies {
			d.tellOfConflicts(object, source, bySource[source])
		}
	}
	return kept
}

// tellOfConflicts reports to an object the conflicts of a younger one, if it is that one or one of
// the others.
func (d *decision) tellOfConflicts(object *v1beta1.HeadscalePolicy, younger string, conflicts []policy.Conflict) {
	own := policy.SourceOf(object.Name)
	var places []string
	for _, c := range conflicts {
		switch own {
		case younger:
			places = append(places, fmt.Sprintf("%s of %s", c.Place, c.With))
		case c.With:
			places = append(places, c.Place)
		}
	}
	switch {
	case len(places) == 0:
	case own == younger:
		d.problems[object.UID] = problem(v1beta1.ReasonConflict, "It says something else than an older one about %s: make them the same, or remove one of them", named(places))
	default:
		d.notes[object.UID] = append(d.notes[object.UID], fmt.Sprintf("%s, which is younger, says something else about %s, and is not joined", younger, named(places)))
	}
}

// held reports whether the policy cannot be changed, because an object cannot be joined any more
// that is in force: without it, the policy would be another one than anybody wrote. The others say
// that they wait. (One that never was in force is left out.)
func (d *decision) held(policies []*v1beta1.HeadscalePolicy) bool {
	var holding []string
	for _, object := range policies {
		if d.problems[object.UID] != nil && object.Status.AppliedDigest != "" {
			holding = append(holding, object.Name)
		}
	}
	if len(holding) > 0 {
		d.refuseRest(policies, pending("HeadscalePolicy %s cannot be joined as it is now; until that is mended, what is in force stays", named(holding)))
	}
	return len(holding) > 0
}

// stay leaves in force what is.
func (d *decision) stay(f *facts) *decision {
	d.noteForeign(f)
	if f.sending() != "" && strings.TrimSpace(f.inForce) != "" {
		d.action = restore
	}
	return d
}

// noteForeign notes that what is in force allows everything, or is something else than what Headscale accepted
// last. It cannot be reverted: that text is not kept, and what the objects say now cannot be sent.
func (d *decision) noteForeign(f *facts) {
	if !policy.MayHaveRules(f.inForce) {
		d.foreign = fmt.Sprintf("; what is in force now has no rules, and so allows everything, until a policy is accepted: mend this first. "+
			"kubectl headscale policy %s -n %s shows it", f.headscale.Name, f.headscale.Namespace)
		return
	}
	inForce, known := "", false
	if document, err := policy.Parse(f.inForce); err == nil {
		inForce = document.Digest()
	}
	for _, object := range f.policies {
		accepted := object.Status.PolicyDigest
		known = known || accepted != ""
		if inForce != "" && (inForce == accepted || inForce == object.Status.SendingDigest || inForce == f.memory.sent) {
			return
		}
	}
	if known {
		d.foreign = fmt.Sprintf("; what is in force is not what was accepted last: probably somebody else has set it. It stays until a policy is accepted; "+
			"kubectl headscale policy %s -n %s shows it", f.headscale.Name, f.headscale.Namespace)
	}
}

// sending is the digest of a policy of which it is not known what became of it; "": there is none.
func (f *facts) sending() string { return cmp.Or(sending(f.policies), f.memory.sent) }

// acceptedUnanswered is sending where Headscale has stored that policy, and so has accepted it; "" where not.
func (f *facts) acceptedUnanswered() string {
	stored, err := policy.Parse(f.inForce)
	if err != nil || stored.Digest() != f.sending() {
		return ""
	}
	return f.sending()
}

// sending is the digest of such a policy by the status of objects.
func sending(policies []*v1beta1.HeadscalePolicy) string {
	for _, object := range policies {
		if object.Status.SendingDigest != "" {
			return object.Status.SendingDigest
		}
	}
	return ""
}

// compare decides by what Headscale has.
func (d *decision) compare(f *facts, accepted []policy.Part) *decision {
	for _, object := range f.policies {
		if slices.ContainsFunc(accepted, func(part policy.Part) bool { return part.Source == policy.SourceOf(object.Name) }) {
			d.joined = append(d.joined, object)
		}
	}
	d.text, _ = policy.Join(policy.Header(f.headscale.Namespace, f.headscale.Name), accepted)
	wanted, err := policy.Parse(d.text)
	if err != nil {
		d.refuseAll(d.joined, fmt.Errorf("reading the joined policy: %w", err))
		return d.stay(f)
	}
	inForce, err := policy.Parse(f.inForce)
	if err != nil {
		inForce = nil // "", or something that another release took
	}
	d.digest, d.sections = wanted.Digest(), policy.Differing(inForce, wanted)
	switch {
	case inForce != nil && len(d.sections) == 0 && d.isInMemory(f):
		d.inForce = true
		return d
	case policy.MayHaveRules(f.inForce) && wanted.AllowsAll():
		d.refuseAll(d.joined, problem(v1beta1.ReasonWouldAllowAll, "Without any acls or grants Headscale allows everything, and what is in force has some, or cannot be read: "+
			"it stays. Write acls: [] to allow nothing, or an entry that allows all, if that is wanted"))
		return d.stay(f)
	case d.isRefused(f):
		d.blame(f.memory.refused)
		return d.stay(f)
	case d.isDrift(f, inForce):
		return d.decideDrift(f, wanted)
	default:
		d.action = apply
		return d
	}
}

// isRefused reports whether Headscale has just refused the policy.
func (d *decision) isRefused(f *facts) bool {
	r := f.memory.refused
	return r != nil && r.digest == d.digest && r.version == f.headscale.Status.Version && f.now.Before(r.until)
}

// isInMemory reports whether Headscale, which has stored the policy, has no other one in memory:
//
//   - Nothing was sent of which it is not known what became: v0.29.3 has in memory what it has stored.
//   - This one was sent, and not answered. It was noted while something else was stored (see noteSending), and
//     is stored now; v0.29.3 stores a policy only after it has it in memory. To send it again would change
//     nothing, and one that takes longer than the operator waits would be sent for ever.
//
// Where another one was sent, v0.29.3 may have that in memory, though it is not stored: what is stored is sent
// again. So it is where this one was refused, which may have happened after it was stored.
func (d *decision) isInMemory(f *facts) bool {
	unanswered := f.sending()
	return unanswered == "" || unanswered == d.digest && !d.isRefused(f)
}

// isDrift reports whether Headscale had accepted the policy: then somebody else has changed it, unless
// what it has is what an operator sent that did not come to report it, or not to all objects.
func (d *decision) isDrift(f *facts, inForce *policy.Document) bool {
	accepted := func(digest string) bool {
		return slices.ContainsFunc(d.joined, func(object *v1beta1.HeadscalePolicy) bool { return object.Status.PolicyDigest == digest })
	}
	if inForce != nil && inForce.Digest() != d.digest && (inForce.Digest() == f.sending() || accepted(inForce.Digest())) {
		return false
	}
	return len(d.sections) > 0 && accepted(d.digest)
}

// decideDrift reverts what somebody else has changed, unless that one does not give up. It does not give
// way to a policy that allows everything because it has no rules: nobody needs to have changed anything then,
// such as where the database was lost.
func (d *decision) decideDrift(f *facts, wanted *policy.Document) *decision {
	opened := !policy.MayHaveRules(f.inForce) && !wanted.AllowsAll()
	contested := slices.ContainsFunc(d.joined, func(object *v1beta1.HeadscalePolicy) bool {
		return meta.IsStatusConditionTrue(object.Status.Conditions, v1beta1.ConditionContested)
	})
	if opened || !contested && corrections(d.joined, f.now) < mostCorrections {
		d.action = correct
		return d
	}
	d.refuseAll(d.joined, problem(v1beta1.ReasonContested, "Somebody else changes the policy again and again (now: %s), and that is not reverted any more; "+
		"kubectl headscale policy %s -n %s shows the difference. Find out who does, with the log of Headscale; then change what a HeadscalePolicy says (a comment does not count), "+
		"or set the policy by hand to what the HeadscalePolicies say", named(d.sections), f.headscale.Name, f.headscale.Namespace))
	return d.stay(f)
}

// corrections is how many changes by hand were reverted in a row.
func corrections(policies []*v1beta1.HeadscalePolicy, now time.Time) int32 {
	var most int32
	for _, object := range policies {
		if at := object.Status.CorrectedAt; at != nil && now.Sub(at.Time) < rowEnds {
			most = max(most, object.Status.Corrections)
		}
	}
	return most
}

// blame reports a refusal: the objects that have changed since Headscale accepted a policy last, or
// all where none has. The others wait.
func (d *decision) blame(refused *refusal) {
	var changed []*v1beta1.HeadscalePolicy
	for _, object := range d.joined {
		if d.digests[object.UID] != object.Status.AppliedDigest {
			changed = append(changed, object)
		}
	}
	shared := ", joined with this one and not accepted yet either"
	if len(changed) == 0 {
		changed, shared = d.joined, ", joined with this one"
	}
	var names []string
	for _, object := range changed {
		names = append(names, object.Name)
	}
	for i, object := range changed {
		d.problems[object.UID] = refused.problem
		if others := slices.Delete(slices.Clone(names), i, i+1); len(others) > 0 && refused.problem.Because == v1beta1.ReasonRefused {
			// Headscale does not say in which of them it found what it names.
			own := *refused.problem
			own.Message += fmt.Sprintf("; Headscale's message may be about HeadscalePolicy %s%s", named(others), shared)
			d.problems[object.UID] = &own
		}
	}
	d.refuseRest(d.joined, pending("Headscale refuses the policy with HeadscalePolicy %s as it is now; until that is mended, what is in force stays", named(names)))
}

// refuseAll gives all objects the same problem.
func (d *decision) refuseAll(policies []*v1beta1.HeadscalePolicy, problem error) {
	for _, object := range policies {
		d.problems[object.UID] = problem
	}
}

// refuseRest gives the objects a problem that have none.
func (d *decision) refuseRest(policies []*v1beta1.HeadscalePolicy, problem error) {
	for _, object := range policies {
		if d.problems[object.UID] == nil {
			d.problems[object.UID] = problem
		}
	}
}

// checkMode returns why a Headscale does not read its policy from its database; nil: it does.
func checkMode(headscale *v1beta1.Headscale) error {
	if headscale.Spec.Files.Policy != nil {
		return problem(v1beta1.ReasonConflict, "Headscale %s has its policy from a file: remove its spec.files.policy, and set spec.config.policy.mode to database", headscale.Name)
	}
	document, err := headscale.Spec.Config.Document()
	if err != nil {
		return nil //nolint:nilerr // the Headscale itself says so
	}
	isMode := func(variable corev1.EnvVar) bool { return variable.Name == resources.PolicyModeVariable }
	// A value that is not known here may be the same as that of the config. Where it is not, Headscale says so.
	env := slices.DeleteFunc(slices.Clone(headscale.Spec.Pod.Env), func(variable corev1.EnvVar) bool { return variable.ValueFrom != nil })
	if resources.PolicyInDatabase(document, env) {
		return nil
	}
	mend := "write policy: {mode: database} in its spec.config"
	if slices.ContainsFunc(env, isMode) {
		mend += fmt.Sprintf(", and remove %s from its spec.pod.env, which comes first", resources.PolicyModeVariable)
	}
	return problem(v1beta1.ReasonPolicyMode, "Headscale %s does not read its policy from its database: %s", headscale.Name, mend)
}

// problem is what somebody must mend.
func problem(reason, format string, arguments ...any) *instance.Problem {
	return &instance.Problem{Because: reason, Lasting: true, Message: fmt.Sprintf(format, arguments...)}
}

// pending is that another object must be mended.
func pending(format string, arguments ...any) *instance.Problem {
	return &instance.Problem{Because: v1beta1.ReasonPolicyPending, Message: fmt.Sprintf(format, arguments...)}
}

// named names some, and how many more there are.
func named(names []string) string {
	if len(names) > mostNamed {
		names = append(slices.Clone(names[:mostNamed]), fmt.Sprintf("and %d more", len(names)-mostNamed))
	}
	return strings.Join(names, ", ")
}
