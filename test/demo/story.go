package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/podrunner"
)

const (
	// stepLimit is how long each thing that the story waits for may take.
	stepLimit = 2 * time.Minute
	// lookEvery is how often the story looks whether it has happened.
	lookEvery = 50 * time.Millisecond

	// refusedPatch overrides the name servers of clients with none.
	refusedPatch = `{"spec":{"config":{"dns":{"magic_dns":true,"base_domain":"tail.internal","override_local_dns":true}}}}`

	// refusedPolicy names a group that there is none of, and mendedPolicy one that the sample has.
	refusedPolicy = `{"spec":{"policy":{"acls":[{"action":"accept","src":["group:dev"],"dst":["*:*"]}]}}}`
	mendedPolicy  = `{"spec":{"policy":{"acls":[{"action":"accept","src":["group:admin"],"dst":["*:443"]}]}}}`

	// backupPatch has the database replicated to a volume of its own.
	backupPatch = `{"spec":{"backup":{"replica":{"type":"file","path":"/backup/headscale"}},` +
		`"pod":{"volumes":[{"name":"replica","persistentVolumeClaim":{"claimName":"headscale-backup"}}],"volume_mounts":[{"name":"replica","mountPath":"/backup"}]}}}`

	// rotationPatch asks for keys that live ten minutes, so that the one at hand,
	// which lives 90 days, is replaced.
	rotationPatch = `{"spec":{"api_key":{"expiration":"10m","rotation_buffer":"5m"}}}`
)

var (
	// headscaleKey names the resource in config/samples and all that is made of it.
	headscaleKey = client.ObjectKey{Namespace: "default", Name: "headscale"}
	// secretKey names the Secret that the resource asks for.
	secretKey = client.ObjectKey{Namespace: "default", Name: "headscale-api-key"}
	// preAuthKey names the HeadscalePreAuthKey in config/samples.
	preAuthKey = client.ObjectKey{Namespace: "default", Name: "web"}
)

// perform plays the story from the first step to the last.
func (s *stage) perform(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		s.prepare, s.startServers, s.applySample, s.awaitHeadscale, s.showKey, s.showUser, s.expirePreAuthKey,
		s.changePolicy, s.rotate, s.refuse, s.showReissued, s.loseVolume, s.showResource,
	} {
		if err := errors.Join(step(ctx), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

// await waits until something has happened. It gives up early when the operator
// has ended, because then nothing will.
func (s *stage) await(ctx context.Context, what string, happened wait.ConditionWithContextFunc) error {
	err := wait.PollUntilContextTimeout(ctx, lookEvery, stepLimit, true, func(ctx context.Context) (bool, error) {
		if !s.Operator.Process.Running() {
			return false, errors.New("the operator ended")
		}
		return happened(ctx)
	})
	if err != nil {
		return fmt.Errorf("%s did not happen: %w", what, err)
	}
	return nil
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
	s.say("The database is replicated to another volume (or to an S3 bucket, …), all the time:")
	s.detail("kubectl patch headscale headscale --type merge -p '%s'", backupPatch)
	if _, err := s.Plane.Kubectl(ctx, "patch", "headscale", headscaleKey.Name, "--type", "merge", "-p", backupPatch); err != nil {
		return err
	}
	s.runPod()
	return nil
}

// runPod runs the pod, which ends before the API server does, and not with Ctrl-C itself.
func (s *stage) runPod() {
	s.pod, s.stopPod = podrunner.StartInWorld(s.World, headscaleKey, s.output)
	stop := s.stopPod
	s.OnClose(func() error { stop(); return nil })
}

// awaitHeadscale waits until the pod runs and is ready.
func (s *stage) awaitHeadscale(ctx context.Context) error {
	err := s.await(ctx, "the start of the pod", func(context.Context) (bool, error) {
		return s.pod.Process("headscale") != nil && s.pod.Process("apikey-manager") != nil, nil
	})
	if err != nil {
		return err
	}
	if err := s.show(ctx, "The operator made its objects, and the containers of the pod run as local processes:",
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
	_, err := s.Plane.Kubectl(ctx, "wait", "headscale/"+headscaleKey.Name, "--for=condition="+condition, "--timeout="+stepLimit.String())
	return err
}

// url is the base of Headscale's REST API.
func (s *stage) url() string {
	return "http://" + s.pod.Address("headscale", "http")
}

// showKey waits for the key, shows the Secret's metadata, and uses the key.
func (s *stage) showKey(ctx context.Context) error {
	if err := s.awaitKey(ctx, "The API Key Manager created an API key and stored it in the Secret "+secretKey.Name+":"); err != nil {
		return err
	}
	return s.call(ctx, "the key", s.key, http.StatusOK)
}

// showUser shows the user that the operator created in Headscale with the key.
func (s *stage) showUser(ctx context.Context) error {
	if _, err := s.Plane.Kubectl(ctx, "wait", "headscaleuser/alice", "--for=condition=Ready", "--timeout="+stepLimit.String()); err != nil {
		return err
	}
	return s.show(ctx, "With the key, the operator created the user of the sample:", "get", "headscaleusers")
}

// expirePreAuthKey shows the pre-auth key that the operator made, and expires it in Headscale, as somebody
// does by hand.
func (s *stage) expirePreAuthKey(ctx context.Context) error {
	if _, err := s.Plane.Kubectl(ctx, "wait", "headscalepreauthkey/"+preAuthKey.Name, "--for=condition=Ready", "--timeout="+stepLimit.String()); err != nil {
		return err
	}
	if err := s.show(ctx, "And a pre-auth key, with which nodes join, in a Secret of its own:", "get", "headscalepreauthkeys"); err != nil {
		return err
	}
	key := &v1beta1.HeadscalePreAuthKey{}
	if err := s.Admin.Get(ctx, preAuthKey, key); err != nil {
		return err
	}
	s.preAuthKey = key.Status.KeyID
	admin := headscale.NewClient(headscale.UnixSocket(s.pod.HostPath("apikey-manager", v1beta1.DefaultSocketPath)))
	defer func() { _ = admin.Close() }()
	s.say("Somebody expires pre-auth key %d in Headscale: no node could join with the Secret's.", s.preAuthKey)
	return admin.ExpirePreAuthKey(ctx, headscale.PreAuthKey{ID: s.preAuthKey})
}

// changePolicy changes the policy to one that Headscale refuses, and then to a right one.
func (s *stage) changePolicy(ctx context.Context) error {
	patch := func(policy, waitFor string) error {
		for _, step := range [][]string{
			{"patch", "headscalepolicy", "base", "--type", "merge", "-p", policy},
			{"wait", "headscalepolicy/base", "--for=" + waitFor, "--timeout=" + stepLimit.String()},
		} {
			if _, err := s.Plane.Kubectl(ctx, step...); err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := s.Plane.Kubectl(ctx, "wait", "headscalepolicy/base", "--for=condition=Ready", "--timeout="+stepLimit.String()); err != nil {
		return err
	}
	if err := patch(refusedPolicy, "condition=Ready=false"); err != nil {
		return err
	}
	if err := s.show(ctx, "Headscale refused a policy, and the one before stays in force:",
		"get", "headscalepolicy", "base", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].message}`); err != nil {
		return err
	}
	if err := patch(mendedPolicy, "condition=Ready"); err != nil {
		return err
	}
	return s.show(ctx, "A right one is in force at once:", "get", "headscalepolicies")
}

// showReissued waits for the pre-auth key that replaces the expired one, which the operator notices within
// half a minute.
func (s *stage) showReissued(ctx context.Context) error {
	key := &v1beta1.HeadscalePreAuthKey{}
	if err := s.await(ctx, "another pre-auth key", func(ctx context.Context) (bool, error) {
		err := s.Admin.Get(ctx, preAuthKey, key)
		return key.Status.KeyID != s.preAuthKey, err
	}); err != nil {
		return err
	}
	return s.show(ctx, fmt.Sprintf("The operator noticed, and replaced pre-auth key %d by %d:", s.preAuthKey, key.Status.KeyID), "get", "headscalepreauthkeys")
}

// awaitKey waits until the Secret holds another key than the last, and prints a sentence and
// what is no secret.
func (s *stage) awaitKey(ctx context.Context, sentence string) error {
	secret := &corev1.Secret{}
	if err := s.await(ctx, "a new key in the Secret", func(ctx context.Context) (bool, error) {
		err := s.Admin.Get(ctx, secretKey, secret)
		key := string(secret.Data[v1beta1.SecretDataKey])
		return err == nil && key != "" && key != s.key, client.IgnoreNotFound(err)
	}); err != nil {
		return err
	}
	s.key = string(secret.Data[v1beta1.SecretDataKey])
	s.say("%s", sentence)
	s.detail("key         %s-… (its public prefix)", secret.Annotations[v1beta1.AnnotationKeyPrefix])
	s.detail("created at  %s", secret.Annotations[v1beta1.AnnotationCreatedAt])
	s.detail("expires     %s", secret.Annotations[v1beta1.AnnotationExpiration])
	return nil
}

// call calls Headscale's REST API with a key and expects a status. An expiry
// takes effect a moment after the Secret has changed.
func (s *stage) call(ctx context.Context, name, key string, expected int) error {
	if err := s.await(ctx, fmt.Sprintf("HTTP status %d with %s", expected, name), func(ctx context.Context) (bool, error) {
		status, err := env.KeyStatus(ctx, s.url(), key)
		return err == nil && status == expected, nil
	}); err != nil {
		return err
	}
	s.say("Headscale's REST API with %s: %d %s", name, expected, http.StatusText(expected))
	return nil
}

// rotate shortens the life of keys, which has the present one replaced at once.
func (s *stage) rotate(ctx context.Context) error {
	old := s.key
	s.say("Asking for keys that live 10 minutes instead of 90 days:")
	s.detail("kubectl patch headscale headscale --type merge -p '%s'", rotationPatch)
	if _, err := s.Plane.Kubectl(ctx, "patch", "headscale", headscaleKey.Name, "--type", "merge", "-p", rotationPatch); err != nil {
		return err
	}
	if err := s.awaitKey(ctx, "The operator replaced the pod, and the API Key Manager the key:"); err != nil {
		return err
	}
	if err := s.call(ctx, "the new key", s.key, http.StatusOK); err != nil {
		return err
	}
	return s.call(ctx, "the old key", old, http.StatusUnauthorized)
}

// refuse changes the config to one that Headscale does not start with, and back.
func (s *stage) refuse(ctx context.Context) error {
	if err := s.awaitCondition(ctx, v1beta1.ConditionReady); err != nil {
		return err
	}
	process := s.pod.Process("headscale")
	for _, step := range [][]string{
		{"patch", "headscale", headscaleKey.Name, "--type", "merge", "-p", refusedPatch},
		{"wait", "headscale/" + headscaleKey.Name, "--for=jsonpath={.status.preflight.outcome}=Refused", "--timeout=" + stepLimit.String()},
	} {
		if _, err := s.Plane.Kubectl(ctx, step...); err != nil {
			return err
		}
	}
	if s.pod.Process("headscale") != process || !process.Running() {
		return errors.New("the pod was restarted with a config that Headscale refuses")
	}
	if err := s.show(ctx, "A preflight refused a config, and Headscale runs on:",
		"get", "headscale", headscaleKey.Name, "-o", "jsonpath={.status.preflight.message}"); err != nil {
		return err
	}
	_, err := s.Plane.Kubectl(ctx, "patch", "headscale", headscaleKey.Name, "--type", "merge", "-p", `{"spec":{"config":{"dns":null}}}`)
	return err
}

// loseVolume deletes the pod with its volume, and waits until everything is back.
func (s *stage) loseVolume(ctx context.Context) error {
	volume := s.pod.HostPath("headscale", "/var/lib/headscale")
	s.stopPod()
	if err := os.RemoveAll(volume); err != nil {
		return err
	}
	s.say("Somebody deletes the pod with its volume: no database, no users, no keys.")
	s.runPod()
	for _, what := range []string{"jsonpath={.status.backup.restored_from}", "condition=" + v1beta1.ConditionReady} {
		if _, err := s.Plane.Kubectl(ctx, "wait", "headscale/"+headscaleKey.Name, "--for="+what, "--timeout="+stepLimit.String()); err != nil {
			return err
		}
	}
	if err := s.show(ctx, "The volume was empty, and Litestream restored the database:",
		"get", "headscale", headscaleKey.Name, "-o", "jsonpath={.status.backup}"); err != nil {
		return err
	}
	admin := headscale.NewClient(headscale.UnixSocket(s.pod.HostPath("apikey-manager", v1beta1.DefaultSocketPath)))
	defer func() { _ = admin.Close() }()
	if err := s.await(ctx, "the return of the user alice", func(ctx context.Context) (bool, error) {
		users, err := admin.ListUsers(ctx)
		return err == nil && len(users) == 1 && users[0].Name == "alice", nil
	}); err != nil {
		return err
	}
	s.say("The user alice is in Headscale, as before.")
	return s.call(ctx, "the key of before", s.key, http.StatusOK)
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
	s.detail("export HEADSCALE_URL=%s", s.url()) // The pod that lost its volume had another address.
	s.detail("%s get headscale,statefulset,service,secret", kubectl)
	s.detail("%s annotate headscale headscale %s=$(date +%%s) --overwrite    # a new key, now", kubectl, v1beta1.AnnotationRotateRequestedAt)
	for ctx.Err() == nil {
		if !s.Operator.Process.Running() {
			return errors.New("the operator ended")
		}
		_ = s.awaitKey(ctx, "The API Key Manager replaced the key:") // In most minutes there is none.
	}
	return nil
}
