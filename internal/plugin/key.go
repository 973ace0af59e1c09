package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
)

// namedKey is what is known of a key, for programs.
type namedKey struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	keyReport `json:",inline"`
}

// keyCommand is kubectl headscale key.
func (a *app) keyCommand() *cobra.Command {
	var reveal bool
	var format output
	command := &cobra.Command{
		Use:   "key [NAME]",
		Short: "Show what is known of a key, or reveal it",
		Long: `Shows what is known of the API key of a Headscale. With --reveal, the key itself is
printed and nothing else, for scripts; a key that Headscale would not accept is refused
with status 1 and a sentence.

Without --reveal, exits with status 3 if there is no key that can be used.`,
		Example: `  kubectl headscale key
  HEADSCALE_CLI_API_KEY=$(kubectl headscale key headscale --reveal) || exit
  export HEADSCALE_CLI_API_KEY`,
		Args:              oneName,
		ValidArgsFunction: a.completeName,
		RunE: func(c *cobra.Command, args []string) error {
			if reveal {
				return a.revealKey(c.Context(), args, &format)
			}
			return a.showKey(c.Context(), args, &format)
		},
	}
	command.Flags().BoolVar(&reveal, "reveal", false, "print the key itself")
	format.addTo(command)
	return command
}

// showKey shows what is known of a key.
func (a *app) showKey(ctx context.Context, args []string, format *output) error {
	c, headscale, err := a.choose(ctx, args)
	if err != nil {
		return err
	}
	secret, err := c.viewSecret(ctx, headscale)
	if err != nil {
		return err
	}
	now := a.Now()
	key := describeKey(headscale, secret, now)
	if *format != "" {
		err = format.write(a.Streams.Out, namedKey{headscale.Namespace, headscale.Name, key})
	} else {
		s := newScreen(a.Streams.Out, a.Getenv)
		all := append([]field{{"Headscale", headscale.Namespace + "/" + headscale.Name, plain}}, s.keyFields(&key, now)...)
		if wrong := key.complaint(headscale); wrong != "" {
			all = append(all, field{"Problem", oneLine(wrong), red})
		}
		if secret.forbidden {
			all = append(all, field{"Unread", "you are not allowed to read Secret " + key.Secret, yellow})
		}
		s.fields(a.Streams.Out, all)
	}
	if err == nil && !key.usable() {
		return errNotReady
	}
	return err
}

// revealKey prints the key itself, if it is one that Headscale accepts.
func (a *app) revealKey(ctx context.Context, args []string, format *output) error {
	c, headscale, err := a.choose(ctx, args)
	if err != nil {
		return err
	}
	name := headscale.Spec.APIKey.EffectiveSecretName()
	secret, err := c.secret(ctx, headscale.Namespace, name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	view := secretView{}
	if err == nil {
		view.metadata = &metav1.PartialObjectMetadata{ObjectMeta: secret.ObjectMeta}
	}
	key := describeKey(headscale, view, a.Now())
	if wrong := key.complaint(headscale); wrong != "" {
		return errors.New(oneLine(wrong))
	}
	if key.Value, err = storedKey(secret); err != nil {
		return err
	}
	if !key.Managed {
		_, _ = fmt.Fprintln(a.Streams.ErrOut, "This key is not rotated: spec.api_key.auto_manage is false.")
	}
	if *format != "" {
		return format.write(a.Streams.Out, namedKey{headscale.Namespace, headscale.Name, key})
	}
	_, err = fmt.Fprintln(a.Streams.Out, key.Value)
	return err
}

// keyText matches the keys of every release: the characters of URL-safe base64, and the dot of
// older keys. Anything else could be harmful to a terminal or a script.
var keyText = regexp.MustCompile(`^[\w.-]+$`)

// storedKey is the key that a Secret holds, if it is the one that the API Key Manager
// stored.
func storedKey(secret *corev1.Secret) (string, error) {
	value := secret.Data[v1beta1.SecretDataKey]
	if len(value) == 0 {
		return "", fmt.Errorf("the Secret %s has no entry %s: it was taken out, and the API Key Manager stores a new key", secret.Name, v1beta1.SecretDataKey)
	}
	if !keyText.Match(value) {
		return "", fmt.Errorf("the Secret %s holds something that is no API key: it has characters that no key has; the API Key Manager replaces it, unless spec.api_key.auto_manage is false", secret.Name)
	}
	digest := sha256.Sum256(value)
	if noted := secret.Annotations[v1beta1.AnnotationKeyDigest]; noted != "" && noted != hex.EncodeToString(digest[:]) {
		return "", fmt.Errorf("the Secret %s does not hold the key that the API Key Manager stored: somebody changed it, and it will be replaced; try again", secret.Name)
	}
	return string(value), nil
}

// keyFields are the lines about a key.
func (s screen) keyFields(key *keyReport, now time.Time) []field {
	state := field{"Key", fmt.Sprintf("%s, Secret %s", key.State, key.Secret), red}
	if key.Prefix != "" {
		state.text = fmt.Sprintf("%s, prefix %s, Secret %s", key.State, key.Prefix, key.Secret)
	}
	switch key.State {
	case keystate.Valid:
		state.as = green
	case keystate.Overdue:
		state.as = yellow
	}
	all := []field{state}
	if key.CreatedAt != nil {
		all = append(all, field{"Age", fmt.Sprintf("%s, since %s", span(now.Sub(key.CreatedAt.Time)), instant(key.CreatedAt.Time)), plain})
	}
	if key.Expiration != nil {
		left := s.timeLeft(key, barOfOne, now)
		all = append(all, field{"Left", fmt.Sprintf("%s, expires %s", left.text, instant(key.Expiration.Time)), left.as})
	}
	switch {
	case key.NextRotation != nil:
		all = append(all, field{"Rotation", fmt.Sprintf("%s, at %s", until(key.NextRotation.Time, now), instant(key.NextRotation.Time)), plain})
	case !key.Managed:
		all = append(all, field{"Rotation", "none: spec.api_key.auto_manage is false", yellow})
	}
	for _, retiring := range key.Retiring {
		all = append(all, field{"Retiring", fmt.Sprintf("prefix %s, until %s", retiring.Prefix, instant(retiring.ValidUntil.Time)), plain})
	}
	return all
}

// timeLeft shows how long a key with a known expiration is still valid.
func (s screen) timeLeft(key *keyReport, columns int, now time.Time) cell {
	left := max(key.Expiration.Sub(now), 0)
	as := green
	switch key.State {
	case keystate.Expired:
		as = red
	case keystate.Overdue:
		as = yellow
	}
	return s.spanLeft(left, key.lifetime, columns, as)
}

// spanLeft shows the rest of a lifetime, which is zero or negative if it is not known.
func (s screen) spanLeft(left, lifetime time.Duration, columns int, as style) cell {
	if lifetime <= 0 {
		return cell{span(left), as}
	}
	text := fmt.Sprintf("%s %s", s.bar(float64(left)/float64(lifetime), columns), span(left))
	if columns == barOfOne {
		text += " of " + span(lifetime)
	}
	return cell{text, as}
}
