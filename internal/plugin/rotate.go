package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// defaultRotateTimeout is how long a new key is waited for. A rotation takes less than a
// second, and about half a minute while the pod is being replaced.
const defaultRotateTimeout = time.Minute

// States of a rotation, as programs read them.
const (
	// rotationRequested says that a new key was requested, and not waited for.
	rotationRequested = "Requested"
	// rotationDone says that the new key is stored.
	rotationDone = "Rotated"
)

// rotationReport is the outcome of a request for a new key.
type rotationReport struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Secret    string `json:"secret"`
	// State is Requested or Rotated.
	State string `json:"state"`
	// Request is the value of the annotation that asks.
	Request string `json:"request"`
	// OldPrefix is the public part of the key that was stored before; "" if none was.
	OldPrefix string `json:"oldPrefix,omitempty"`
	// NewPrefix is the public part of the new key.
	NewPrefix string `json:"newPrefix,omitempty"`
	// Expiration is when the new key expires.
	Expiration *metav1.Time `json:"expiration,omitempty"`
	// OldValidUntil is when the old key is revoked, if that is yet to come.
	OldValidUntil *metav1.Time `json:"oldValidUntil,omitempty"`
	// OldRevoked is whether Headscale refuses the old key; omitted if that is not known, because
	// the permission to read the Secret is missing.
	OldRevoked *bool `json:"oldRevoked,omitempty"`
}

// rotateCommand is kubectl headscale rotate.
func (a *app) rotateCommand() *cobra.Command {
	var format output
	var timeout time.Duration
	var wait bool
	command := &cobra.Command{
		Use:   "rotate [NAME]",
		Short: "Rotate a key now",
		Long: `Asks for a new API key, and waits until it is stored and the old one is revoked. The
old key is refused from then on, or after spec.api_key.revocation_delay: whoever holds a
copy of it needs the new one.

A request that was not executed in time stays, and is executed when the cause is fixed.`,
		Example: `  kubectl headscale rotate
  kubectl headscale rotate headscale --timeout=5m
  kubectl headscale rotate headscale --wait=false`,
		Args: func(c *cobra.Command, args []string) error {
			if timeout <= 0 {
				return usagef("--timeout must be more than 0, such as 1m; --wait=false does not wait at all")
			}
			return oneName(c, args)
		},
		ValidArgsFunction: a.completeName,
		RunE: func(c *cobra.Command, args []string) error {
			return a.rotate(c.Context(), args, timeout, wait, &format)
		},
	}
	command.Flags().DurationVar(&timeout, "timeout", defaultRotateTimeout, "how long to wait for the new key")
	command.Flags().BoolVar(&wait, "wait", true, "wait until the new key is stored and the old one is revoked")
	format.addTo(command)
	return command
}

// rotate asks for a new key and waits for it.
func (a *app) rotate(ctx context.Context, args []string, timeout time.Duration, wait bool, format *output) error {
	c, headscale, err := a.choose(ctx, args)
	if err != nil {
		return err
	}
	if err := refuseRotation(headscale); err != nil {
		return err
	}
	secret, err := c.viewSecret(ctx, headscale)
	if err != nil {
		return err
	}
	// To the nanosecond, so that no two requests have the same value.
	r := newRotation(headscale, secret, a.Now().UTC().Format(time.RFC3339Nano))
	if err := c.requestRotation(ctx, headscale, r.request); err != nil {
		return err
	}
	report := r.report(headscale, secret, rotationRequested)
	if wait {
		p := &progress{out: a.Streams.ErrOut, screen: newScreen(a.Streams.ErrOut, a.Getenv), now: a.Now}
		if report, err = a.follow(ctx, c, r, timeout, p); err != nil {
			return err
		}
	}
	if *format != "" {
		return format.write(a.Streams.Out, report)
	}
	return report.print(a.Streams.Out)
}

// refuseRotation says why a request for a new key would not be executed, whatever
// time is given to it.
func refuseRotation(headscale *v1beta1.Headscale) error {
	name := headscale.Namespace + "/" + headscale.Name
	told := conflict(headscale)
	switch {
	case !headscale.DeletionTimestamp.IsZero():
		return fmt.Errorf("the Headscale %s is being deleted", name)
	case !headscale.Spec.APIKey.Managed():
		return fmt.Errorf("the key of Headscale %s is not rotated: set spec.api_key.auto_manage to true first", name)
	case headscale.Spec.Replicas != nil && *headscale.Spec.Replicas == 0:
		return fmt.Errorf("the Headscale %s is stopped, so that it cannot make a key: set spec.replicas to 1 first", name)
	case told != "":
		return errors.New(oneLine(told))
	default:
		return nil
	}
}

// print prints the outcome of a request, for people.
func (r *rotationReport) print(out io.Writer) error {
	name := r.Namespace + "/" + r.Name
	var err error
	switch {
	case r.State == rotationRequested:
		_, err = fmt.Fprintf(out, "Requested a new API key for Headscale %s; kubectl headscale key -n %s %s shows when it is there.\n", name, r.Namespace, r.Name)
	case r.OldPrefix == "":
		_, err = fmt.Fprintf(out, "Headscale %s has a new API key: %s.\n", name, r.NewPrefix)
	default:
		_, err = fmt.Fprintf(out, "Headscale %s has a new API key: %s in place of %s%s.\n", name, r.NewPrefix, r.OldPrefix, r.oldKeyOutcome())
	}
	return err
}

// oldKeyOutcome says what happened to the old key.
func (r *rotationReport) oldKeyOutcome() string {
	switch {
	case r.OldValidUntil != nil:
		return ", which is valid until " + instant(r.OldValidUntil.Time)
	case r.OldRevoked != nil && *r.OldRevoked:
		return ", which is revoked"
	default:
		return ""
	}
}
