package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/podrunner"
)

const (
	// stepLimit is how long each thing that the story waits for may take.
	stepLimit = 2 * time.Minute
	// lookEvery is how often the story looks whether it has happened.
	lookEvery = 50 * time.Millisecond

	// rotationPatch asks for keys that live ten minutes, so that the one at hand,
	// which lives 90 days, is replaced.
	rotationPatch = `{"spec":{"api_key":{"expiration":"10m","rotation_buffer":"5m"}}}`
)

var (
	// headscaleKey names the resource in config/samples and all that is made of it.
	headscaleKey = client.ObjectKey{Namespace: "default", Name: "headscale"}
	// secretKey names the Secret that the resource asks for.
	secretKey = client.ObjectKey{Namespace: "default", Name: "headscale-api-key"}
)

// perform plays the story from the first step to the last.
func (s *stage) perform(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"preparing", s.prepare},
		{"starting the control plane", s.startControlPlane},
		{"starting the operator", s.startOperator},
		{"applying the sample", s.applySample},
		{"waiting for Headscale", s.awaitHeadscale},
		{"creating the key", s.showKey},
		{"rotating the key", s.rotate},
		{"looking at the resource", s.showResource},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// await waits until something has happened. It gives up early when the operator
// has ended, because then nothing will.
func (s *stage) await(ctx context.Context, what string, happened func(context.Context) (bool, error)) error {
	limited, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	err := wait.PollUntilContextCancel(limited, lookEvery, true, func(ctx context.Context) (bool, error) {
		if !s.Operator.Process().Running() {
			return false, errors.New("the operator ended")
		}
		return happened(ctx)
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s did not happen within %s", what, stepLimit)
	default:
		return err
	}
}

// show runs kubectl, and prints a sentence and what kubectl printed.
func (s *stage) show(ctx context.Context, sentence string, kubectl ...string) error {
	output, err := s.Plane.Kubectl(ctx, kubectl...)
	if err != nil {
		return err
	}
	s.say("%s", sentence)
	s.detail("%s", output)
	return nil
}

// applySample creates the resource, as a user does.
func (s *stage) applySample(ctx context.Context) error {
	err := s.show(ctx, "Applied the sample, a Headscale: kubectl apply -k config/samples",
		"apply", "-k", filepath.Join(s.Root, "config", "samples"))
	if err != nil {
		return err
	}
	var stop func()
	s.pod, stop = podrunner.Start(podrunner.InWorld(s.World, headscaleKey))
	// The pod ends before the API server does, and not with Ctrl-C itself.
	s.OnClose(func() error { stop(); return nil })
	return nil
}

// awaitHeadscale waits until the pod runs and is ready.
func (s *stage) awaitHeadscale(ctx context.Context) error {
	err := s.await(ctx, "the start of the pod", func(context.Context) (bool, error) {
		return s.pod.Process("headscale") != nil && s.pod.Process("apikey-manager") != nil, nil
	})
	if err != nil {
		return err
	}
	if err := s.show(ctx, "The operator made its objects, and the pod's two containers run as local processes:",
		"get", "statefulset,configmap,service,serviceaccount,role,rolebinding",
		"-l", "app.kubernetes.io/managed-by="+v1beta1.ManagedBy, "-o", "name"); err != nil {
		return err
	}
	if err := s.awaitCondition(ctx, v1beta1.ConditionAvailable); err != nil {
		return err
	}
	s.say("Headscale is ready, at %s.", s.url())
	return nil
}

// awaitCondition waits until a condition of the resource is true for its present
// generation.
func (s *stage) awaitCondition(ctx context.Context, condition string) error {
	return s.await(ctx, "the condition "+condition, func(ctx context.Context) (bool, error) {
		headscale := &v1beta1.Headscale{}
		if err := s.Admin.Get(ctx, headscaleKey, headscale); err != nil {
			return false, err
		}
		found := meta.FindStatusCondition(headscale.Status.Conditions, condition)
		return found != nil && found.Status == metav1.ConditionTrue && found.ObservedGeneration == headscale.Generation, nil
	})
}

// url is the base of Headscale's REST API.
func (s *stage) url() string {
	return "http://" + s.pod.Address("headscale", "http")
}

// showKey waits for the key, shows the Secret's metadata, and uses the key.
func (s *stage) showKey(ctx context.Context) error {
	secret, err := s.awaitKey(ctx, "")
	if err != nil {
		return err
	}
	s.say("The API Key Manager created an API key and stored it in the Secret %s:", secretKey.Name)
	s.showSecret(secret)
	return s.call(ctx, "the key", keyOf(secret), http.StatusOK)
}

// awaitKey waits until the Secret holds a key other than the old one.
func (s *stage) awaitKey(ctx context.Context, old string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := s.await(ctx, "a new key in the Secret", func(ctx context.Context) (bool, error) {
		err := s.Admin.Get(ctx, secretKey, secret)
		if err != nil {
			return false, client.IgnoreNotFound(err)
		}
		return keyOf(secret) != "" && keyOf(secret) != old, nil
	})
	return secret, err
}

// keyOf is the key that a Secret holds.
func keyOf(secret *corev1.Secret) string {
	return string(secret.Data[v1beta1.SecretDataKey])
}

// showSecret prints what is no secret.
func (s *stage) showSecret(secret *corev1.Secret) {
	s.detail("key         %s-… (its public prefix)", secret.Annotations[v1beta1.AnnotationKeyPrefix])
	s.detail("created at  %s", secret.Annotations[v1beta1.AnnotationCreatedAt])
	s.detail("expires     %s", secret.Annotations[v1beta1.AnnotationExpiration])
}

// call calls Headscale's REST API with a key and expects a status. An expiry
// takes effect a moment after the Secret has changed.
func (s *stage) call(ctx context.Context, name, key string, expected int) error {
	last := 0
	err := s.await(ctx, fmt.Sprintf("HTTP status %d with %s", expected, name), func(ctx context.Context) (bool, error) {
		status, err := env.KeyStatus(ctx, s.url(), key)
		last = status
		return err == nil && status == expected, nil
	})
	if err != nil {
		return fmt.Errorf("%w; the last was %d", err, last)
	}
	s.say("Headscale's REST API with %s: %d %s", name, expected, http.StatusText(expected))
	return nil
}

// rotate shortens the life of keys, which has the present one replaced at once.
func (s *stage) rotate(ctx context.Context) error {
	secret, err := s.awaitKey(ctx, "")
	if err != nil {
		return err
	}
	old := keyOf(secret)
	s.say("Asking for keys that live 10 minutes instead of 90 days:")
	s.detail("kubectl patch headscale headscale --type merge -p '%s'", rotationPatch)
	if _, err := s.Plane.Kubectl(ctx, "patch", "headscale", headscaleKey.Name, "--type", "merge", "-p", rotationPatch); err != nil {
		return err
	}
	if secret, err = s.awaitKey(ctx, old); err != nil {
		return err
	}
	s.say("The operator replaced the pod, and the API Key Manager the key:")
	s.showSecret(secret)
	if err := s.call(ctx, "the new key", keyOf(secret), http.StatusOK); err != nil {
		return err
	}
	return s.call(ctx, "the old key", old, http.StatusUnauthorized)
}

// showResource shows the resource as kubectl does, once it is ready.
func (s *stage) showResource(ctx context.Context) error {
	if err := s.awaitCondition(ctx, v1beta1.ConditionReady); err != nil {
		return err
	}
	return s.show(ctx, "That was the story. kubectl get headscale says:", "get", "headscale")
}

// stayUp goes on telling what happens to the key, until Ctrl-C. The operator's end is a failure.
func (s *stage) stayUp(ctx context.Context) error {
	kubectl := "kubectl"
	if _, err := exec.LookPath(kubectl); err != nil {
		kubectl = s.Servers.Kubectl()
	}
	s.say("Look around, as long as you like, in another terminal; Ctrl-C ends the demo and removes everything:")
	s.detail("export KUBECONFIG=%s", s.Plane.Kubeconfig())
	s.detail("%s get headscale,statefulset,service,secret", kubectl)
	s.detail("%s annotate headscale headscale %s=$(date +%%s) --overwrite    # a new key, now", kubectl, v1beta1.AnnotationRotateRequestedAt)
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.Operator.Process().Exited():
			return errors.New("the operator ended")
		case <-time.After(lookEvery):
		}
		secret := &corev1.Secret{}
		if err := s.Admin.Get(ctx, secretKey, secret); err != nil {
			continue // Somebody who looks around may well delete it.
		}
		if key := keyOf(secret); key != "" && key != last {
			if last != "" {
				s.say("The API Key Manager replaced the key:")
				s.showSecret(secret)
			}
			last = key
		}
	}
}
