package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/monitoring/stage"
	"infrado.cloud/headscale-operator/test/podrunner"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// manifest is a Headscale in a namespace, with what is said of its key.
const manifest = `
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: headscale, namespace: %s}
spec:
  version: ` + serverbuild.DefaultHeadscale + `
  config: {server_url: "http://headscale.example.com"}
  api_key: %s
`

// keys are what the Headscales of the play say of their keys, by their namespace.
var keys = map[string]string{
	"vpn":    "{expiration: 6m, rotation_buffer: 4m}",
	"office": "{expiration: 20m, rotation_buffer: 12m, revocation_delay: 90s}",
	"lab":    "{expiration: 15m, rotation_buffer: 10m}",
}

// play is what happens while Prometheus looks.
type play struct {
	admin client.Client
	pods  map[string]*podrunner.Runner
	begun time.Time
}

// begin makes the Headscales.
func begin(ctx context.Context, on *stage.Stage) (*play, error) {
	p := &play{admin: on.Admin, pods: map[string]*podrunner.Runner{}, begun: time.Now()}
	for namespace, key := range keys {
		pod, err := on.Add(ctx, fmt.Sprintf(manifest, namespace, key))
		if err != nil {
			return nil, err
		}
		p.pods[namespace] = pod
	}
	return p, nil
}

// perform does one thing after the other, each at its time.
func (p *play) perform(ctx context.Context) error {
	for _, scene := range []struct {
		at  time.Duration
		say string
		do  func(context.Context) error
	}{
		{4 * time.Minute, "office is stopped", p.patch("office", `{"spec":{"replicas":0}}`)},
		{5 * time.Minute, "the Secret in lab loses the labels that make it ours", p.disown("lab")},
		{6 * time.Minute, "office is started", p.patch("office", `{"spec":{"replicas":1}}`)},
		{9*time.Minute + 30*time.Second, "a rotation is asked for in vpn", p.patch("vpn",
			`{"metadata":{"annotations":{"`+v1beta1.AnnotationRotateRequestedAt+`":"now"}}}`)},
		{11 * time.Minute, "somebody changes the key in office", p.overwrite("office")},
		{13 * time.Minute, "Headscale hangs in vpn", p.signal("vpn", syscall.SIGSTOP)},
		{15 * time.Minute, "Headscale goes on in vpn", p.signal("vpn", syscall.SIGCONT)},
	} {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(p.begun.Add(scene.at))):
		}
		fmt.Printf("%5s %s\n", scene.at, scene.say)
		if err := scene.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", scene.say, err)
		}
	}
	return nil
}

// patch changes a Headscale.
func (p *play) patch(namespace, patch string) func(context.Context) error {
	return func(ctx context.Context) error {
		headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "headscale"}}
		return p.admin.Patch(ctx, headscale, client.RawPatch(types.MergePatchType, []byte(patch)))
	}
}

// secretPatch changes the Secret of a Headscale.
func (p *play) secretPatch(namespace, patch string) func(context.Context) error {
	return func(ctx context.Context) error {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1beta1.DefaultSecretName}}
		return p.admin.Patch(ctx, secret, client.RawPatch(types.MergePatchType, []byte(patch)))
	}
}

// disown makes the Secret somebody else's.
func (p *play) disown(namespace string) func(context.Context) error {
	return p.secretPatch(namespace, `{"metadata":{"labels":{"`+v1beta1.LabelManagedBy+`":null,"`+v1beta1.LabelComponent+`":null}}}`)
}

// overwrite puts something else into the Secret.
func (p *play) overwrite(namespace string) func(context.Context) error {
	return p.secretPatch(namespace, `{"stringData":{"`+v1beta1.SecretDataKey+`":"somebody else's"}}`)
}

// signal stops a Headscale in its tracks, or has it go on.
func (p *play) signal(namespace string, signal syscall.Signal) func(context.Context) error {
	return func(context.Context) error {
		headscale := p.pods[namespace].Process("headscale")
		if headscale == nil {
			return fmt.Errorf("no Headscale runs in %s", namespace)
		}
		return headscale.Signal(signal)
	}
}
