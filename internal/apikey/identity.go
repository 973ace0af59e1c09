package apikey

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// How often the Secret is compared with the volume: while all is as it should be, and while
// somebody has to decide.
const (
	identityInterval        = 10 * time.Minute
	identityDiffersInterval = time.Minute
)

// The prefix and the length in bytes of a private key, as every supported release of Headscale
// writes it.
const (
	privateKeyPrefix = "privkey:"
	privateKeyBytes  = 32
)

// IdentitySecret is access to the one Secret that keeps Headscale's private keys.
type IdentitySecret interface {
	// Get returns the Secret, or a NotFound error.
	Get(ctx context.Context) (*corev1.Secret, error)
	// Create makes the Secret; its namespace and name are filled in.
	Create(ctx context.Context, secret *corev1.Secret) (*corev1.Secret, error)
	// Patch changes the Secret by a merge patch.
	Patch(ctx context.Context, patch []byte) (*corev1.Secret, error)
}

// Identity keeps Headscale's private keys in a Secret. It adds what is missing there, and
// replaces nothing: the keys that were kept first are those that devices know.
type Identity struct {
	Secret IdentitySecret
	// Dir has a copy of the keys on the data volume, as RestoreIdentity left them.
	Dir string
	// Headscale is the name of the Headscale.
	Headscale string
	Log       *slog.Logger

	// state is what was reported last.
	state string
}

// Start keeps the keys until the context ends. Whatever fails outside, it tries again.
func (i *Identity) Start(ctx context.Context) {
	failing := rotation.NewBackoff(identityDiffersInterval)
	for ctx.Err() == nil {
		keys, err := readKeys(i.Dir)
		var comparison string
		if err == nil {
			comparison, err = i.keep(ctx, keys)
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			i.report(i.Log.Warn, "Cannot keep Headscale's private keys in their Secret; trying again", without(err, slices.Collect(maps.Values(keys))))
			pause(ctx, failing.Step())
			continue
		case strings.Contains(comparison, v1beta1.IdentityDiffers):
			i.report(i.Log.Warn, "The data volume has other private keys than their Secret, which is left as it is", comparison)
			pause(ctx, identityDiffersInterval)
		default:
			i.report(i.Log.Info, "Headscale's private keys are in their Secret", comparison)
			pause(ctx, identityInterval)
		}
		failing = rotation.NewBackoff(identityDiffersInterval)
	}
}

// report writes one line to the log for each change of state.
func (i *Identity) report(log func(string, ...any), text, message string) {
	if state := text + message; state != i.state {
		i.state = state
		log(text, "message", message)
	}
}

// keep adds to the Secret the keys that it does not have, and returns how the others compare.
func (i *Identity) keep(ctx context.Context, keys map[string]string) (string, error) {
	secret, err := i.Secret.Get(ctx)
	if apierrors.IsNotFound(err) {
		return i.create(ctx, keys)
	}
	if err != nil {
		return "", err
	}
	if !v1beta1.IsIdentitySecret(secret.Labels) {
		return "", fmt.Errorf("the Secret %s exists and does not have the labels of private keys, so it is left alone: rename or delete it", secret.Name)
	}
	comparison, missing := compareKeys(keys, secret.Data)
	if len(missing) == 0 && secret.Annotations[v1beta1.AnnotationIdentity] == comparison {
		return comparison, nil
	}
	// With the version that was read, nobody's write in between is overwritten.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{
			"uid": secret.UID, "resourceVersion": secret.ResourceVersion,
			"annotations": map[string]string{v1beta1.AnnotationIdentity: comparison},
		},
		"data": missing,
	})
	if err != nil {
		return "", fmt.Errorf("encoding the private keys: %w", err)
	}
	_, err = i.Secret.Patch(ctx, patch)
	return comparison, err
}

// create makes the Secret. No Headscale owns it: it outlives its Headscale, as the volume does.
func (i *Identity) create(ctx context.Context, keys map[string]string) (string, error) {
	comparison, missing := compareKeys(keys, nil)
	_, err := i.Secret.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{
				v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentIdentity, v1beta1.LabelHeadscale: i.Headscale,
			},
			Annotations: map[string]string{
				v1beta1.AnnotationIdentity: comparison,
				// Argo CD deletes neither this nor the claim of the volume.
				"argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
			},
		},
		Type: corev1.SecretTypeOpaque,
		Data: missing,
	})
	return comparison, err
}

// compareKeys says how keys compare with those that are kept, and which of them are not.
func compareKeys(keys map[string]string, kept map[string][]byte) (comparison string, missing map[string][]byte) {
	missing = map[string][]byte{}
	var all []string
	for _, entry := range slices.Sorted(maps.Keys(keys)) {
		state := v1beta1.IdentityKept
		switch stored := strings.TrimSpace(string(kept[entry])); stored {
		case "":
			missing[entry] = []byte(keys[entry])
		case keys[entry]:
		default:
			state = v1beta1.IdentityDiffers
		}
		all = append(all, entry+"="+state)
	}
	return strings.Join(all, ","), missing
}

// readKeys reads the keys that RestoreIdentity copied.
func readKeys(dir string) (map[string]string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading Headscale's private keys: %w", err)
	}
	keys := map[string]string{}
	for _, file := range files {
		content, err := fs.ReadFile(os.DirFS(dir), file.Name())
		if err == nil {
			keys[file.Name()], err = parsePrivateKey(content)
		}
		if err != nil {
			return nil, fmt.Errorf("reading Headscale's private keys: %w", err)
		}
	}
	return keys, nil
}

// errNoPrivateKey says that a text is no private key. It does not quote it.
var errNoPrivateKey = errors.New("it is no private key of Headscale, which is " + privateKeyPrefix + " and 64 hexadecimal digits")

// parsePrivateKey returns the text of a private key without the space around it. Whatever else
// somebody has put in its place is not copied anywhere.
func parsePrivateKey(content []byte) (string, error) {
	text := strings.TrimSpace(string(content))
	digits, found := strings.CutPrefix(text, privateKeyPrefix)
	if key, err := hex.DecodeString(digits); !found || err != nil || len(key) != privateKeyBytes {
		return "", errNoPrivateKey
	}
	return text, nil
}
