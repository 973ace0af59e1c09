package keyuse

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// FirstAnswer is when Headscale first answers a call on its socket, or the context ends.
func FirstAnswer(ctx context.Context, socket string) time.Time {
	admin := headscale.NewClient(headscale.UnixSocket(socket))
	defer func() { _ = admin.Close() }()
	_ = wait.PollUntilContextCancel(ctx, time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := admin.ListAPIKeys(ctx)
		return err == nil, nil
	})
	return time.Now()
}

// Baseline measures what storing a first key takes without an API Key Manager, in its order: a
// pending entry in the Secret, the key, the key in the Secret. It is done with the manager's means,
// and with the rights of the kubeconfig. There must be no Secret of the default name; afterwards
// there is one.
func Baseline(ctx context.Context, kubeconfig, namespace, socket string) (time.Duration, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return 0, err
	}
	secrets, err := apikey.NewSecrets(config, namespace, v1beta1.DefaultSecretName)
	if err != nil {
		return 0, err
	}
	// The manager is connected, too, when Headscale comes.
	_, err = secrets.Get(ctx)
	if err := client.IgnoreNotFound(err); err != nil {
		return 0, err
	}
	admin := headscale.NewClient(headscale.UnixSocket(socket))
	defer func() { _ = admin.Close() }()

	began := time.Now()
	secret, err := secrets.Create(ctx, &corev1.Secret{Type: corev1.SecretTypeOpaque})
	if err != nil {
		return 0, fmt.Errorf("writing the pending entry: %w", err)
	}
	key, err := admin.CreateAPIKey(ctx, time.Now().Add(time.Hour))
	if err != nil {
		return 0, fmt.Errorf("creating a key: %w", err)
	}
	secret.Data = map[string][]byte{v1beta1.SecretDataKey: []byte(key.Reveal())}
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, "example.com/baseline", "measured")
	if _, err = secrets.Update(ctx, secret); err != nil {
		return 0, fmt.Errorf("storing the key: %w", err)
	}
	return time.Since(began), nil
}
