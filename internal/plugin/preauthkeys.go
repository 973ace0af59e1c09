package plugin

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// preAuthKeyReport is the state of a HeadscalePreAuthKey. The key itself is only in its Secret,
// which is not read.
type preAuthKeyReport struct {
	objectReport
	// User is the HeadscaleUser, or UserID the id of the user in Headscale; neither for a key of
	// tags only.
	User   string        `json:"user,omitempty"`
	UserID *int64        `json:"userId,omitempty"`
	Tags   []v1beta1.Tag `json:"tags"`
	// Reusable and Ephemeral are as in the spec.
	Reusable  bool `json:"reusable"`
	Ephemeral bool `json:"ephemeral"`
	// Secret and SecretKey say where the key is.
	Secret    string `json:"secret"`
	SecretKey string `json:"secretKey"`
	// KeyID, Expiration and NextRotation are those of the key in the Secret.
	KeyID        uint64       `json:"keyId,omitempty"`
	Expiration   *metav1.Time `json:"expiration,omitempty"`
	NextRotation *metav1.Time `json:"nextRotation,omitempty"`
	// Used is how many keys were used up.
	Used int64 `json:"used"`

	lifetime time.Duration
}

// preAuthKeys is the kind HeadscalePreAuthKey.
var preAuthKeys = &within[v1beta1.HeadscalePreAuthKey, *preAuthKeyReport]{
	kind: v1beta1.KindPreAuthKey, resource: "headscalepreauthkeys", short: []string{"hspak", "hspre"},
	columns: []string{"USER", "REUSABLE", "EPHEMERAL", "USED", "LEFT", "ROTATION"}, wider: []string{"KEY", "TAGS", "SECRET"},
	newList: func() runtime.Object { return &v1beta1.HeadscalePreAuthKeyList{} }, describe: describePreAuthKey,
}

// preAuthKeysCommand is kubectl headscale preauthkeys.
func (a *app) preAuthKeysCommand() *cobra.Command {
	return withinCommand(a, preAuthKeys, &cobra.Command{
		Use:     "preauthkeys [NAME]",
		Aliases: []string{"preauthkey"},
		Short:   "Show the HeadscalePreAuthKeys and when their keys are replaced",
		Long: `Shows how a HeadscalePreAuthKey is: where its key is, for whom and until when, when it is
replaced, and what is wrong. Without NAME, all HeadscalePreAuthKeys of the namespace are shown,
or of all namespaces with -A. No Secret is read.

Exits with status 3 if one of those that are shown is not ready.`,
		Example: `  kubectl headscale preauthkeys
  kubectl headscale preauthkeys web -o json`,
	})
}

// describePreAuthKey returns the state of a HeadscalePreAuthKey at some time.
func describePreAuthKey(key *v1beta1.HeadscalePreAuthKey, now time.Time) *preAuthKeyReport {
	report := &preAuthKeyReport{
		objectReport: describeObject(&key.ObjectMeta, key.Status.ObservedGeneration, key.Status.Conditions),
		User:         key.Spec.HeadscaleUserRef, UserID: key.Spec.UserID, Tags: append([]v1beta1.Tag{}, key.Spec.Tags...),
		Reusable: key.Spec.Reusable, Ephemeral: key.Spec.Ephemeral, Secret: key.EffectiveSecretName(), SecretKey: key.Spec.SecretKey,
		KeyID: key.Status.KeyID, Expiration: key.Status.Expiration, NextRotation: key.Status.NextRotation, Used: key.Status.Used,
	}
	report.Headscale, report.HeadscaleNamespace = key.Spec.HeadscaleRef, key.HeadscaleNamespace()
	if lifetime, _, _, err := key.Spec.Lifetimes(); err == nil {
		report.lifetime = lifetime
	}
	if report.Ready && report.Reason != v1beta1.ReasonUsed && report.isOver(now) {
		report.Ready = false
		report.Problem = fmt.Sprintf("the pre-auth key expired at %s and was not replaced; %s", instant(key.Status.Expiration.Time), whereOperator)
	}
	return report
}

// isOver reports whether the key in the Secret has expired.
func (k *preAuthKeyReport) isOver(now time.Time) bool {
	return k.Expiration != nil && !k.Expiration.After(now)
}

// owner is the owner of nodes that register with the key.
func (k *preAuthKeyReport) owner() string {
	if k.UserID != nil {
		return fmt.Sprintf("id %d", *k.UserID)
	}
	return orDash(k.User)
}

// tags are the tags of nodes that register with the key.
func (k *preAuthKeyReport) tags(separator string) string {
	tags := make([]string, len(k.Tags))
	for i, tag := range k.Tags {
		tags[i] = string(tag)
	}
	return orDash(strings.Join(tags, separator))
}

func (k *preAuthKeyReport) fields(s screen, now time.Time) []field {
	all := []field{
		{"User", k.owner(), plain}, {"Tags", k.tags(", "), plain}, {"Nodes", k.nodes(), plain},
		{"Secret", fmt.Sprintf("%s, entry %s", k.Secret, k.SecretKey), plain},
	}
	if k.KeyID != 0 {
		all = append(all, field{"Key", fmt.Sprintf("id %d, %d used up", k.KeyID, k.Used), plain})
	}
	if k.Expiration != nil {
		left := k.left(s, barOfOne, now)
		all = append(all, field{"Left", fmt.Sprintf("%s, expires %s", left.text, instant(k.Expiration.Time)), left.as})
	}
	if k.NextRotation != nil {
		all = append(all, field{"Rotation", fmt.Sprintf("%s, at %s", until(k.NextRotation.Time, now), instant(k.NextRotation.Time)), plain})
	}
	return all
}

// nodes says which nodes may register with the key.
func (k *preAuthKeyReport) nodes() string {
	number := "one"
	if k.Reusable {
		number = "any number"
	}
	if k.Ephemeral {
		return number + ", removed when gone"
	}
	return number
}

// left is how long the key in the Secret is still valid.
func (k *preAuthKeyReport) left(s screen, columns int, now time.Time) cell {
	as := green
	if k.isOver(now) {
		as = red
	}
	return s.spanLeft(max(k.Expiration.Sub(now), 0), k.lifetime, columns, as)
}

func (k *preAuthKeyReport) row(s screen, now time.Time) []cell {
	left, rotation := cell{"-", plain}, "-"
	if k.Expiration != nil {
		left = k.left(s, barOfMany, now)
	}
	if k.NextRotation != nil {
		rotation = until(k.NextRotation.Time, now)
	}
	return []cell{{k.owner(), plain}, {fmt.Sprint(k.Reusable), plain}, {fmt.Sprint(k.Ephemeral), plain}, {fmt.Sprint(k.Used), plain}, left, {rotation, plain}}
}

func (k *preAuthKeyReport) more(time.Time) []cell {
	id := "-"
	if k.KeyID != 0 {
		id = fmt.Sprint(k.KeyID)
	}
	return []cell{{id, plain}, {k.tags(","), plain}, {k.Secret, plain}}
}
