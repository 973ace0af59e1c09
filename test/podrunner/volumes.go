package podrunner

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/env"
)

// rootCAConfigMap is published into every namespace by a controller that does
// not run here, so its content is supplied where it is missing.
const rootCAConfigMap = "kube-root-ca.crt"

// defaultTokenLifetime is that of a projected token without expirationSeconds.
const defaultTokenLifetime = time.Hour

// token is a file with a ServiceAccount token that has to be renewed.
type token struct {
	path     string
	lifetime time.Duration
}

// mount prepares the volumes of one container and returns its mounts and tokens.
// Volumes that have content of their own are made for each container anew,
// because paths in them are rewritten to the mounts of that container.
func (p *pod) mount(ctx context.Context, container *corev1.Container) (mounts, []token, error) {
	dirs := mounts{}
	for _, volumeMount := range container.VolumeMounts {
		dir, err := p.volumeDir(container.Name, volumeMount.Name)
		if err != nil {
			return nil, nil, fmt.Errorf("container %s: %w", container.Name, err)
		}
		dirs.add(volumeMount.MountPath, dir, expand(volumeMount.SubPath, nil))
	}
	var tokens []token
	for _, volumeMount := range container.VolumeMounts {
		dir, _ := p.volumeDir(container.Name, volumeMount.Name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, err
		}
		made, err := p.fill(ctx, p.volumes()[volumeMount.Name], dir, dirs)
		if err != nil {
			return nil, nil, fmt.Errorf("volume %s: %w", volumeMount.Name, err)
		}
		tokens = append(tokens, made...)
	}
	return dirs, tokens, nil
}

// volumes are the pod's by name, with those of the claim templates.
func (p *pod) volumes() map[string]corev1.VolumeSource {
	result := map[string]corev1.VolumeSource{}
	for i := range p.template.Spec.Volumes {
		result[p.template.Spec.Volumes[i].Name] = p.template.Spec.Volumes[i].VolumeSource
	}
	for i := range p.claims {
		result[p.claims[i].Name] = corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{
			ClaimName: p.claims[i].Name + "-" + p.name,
		}}
	}
	return result
}

// volumeDir is the directory that stands for a volume in a container. Names are
// kept short, for the sake of sockets.
func (p *pod) volumeDir(container, name string) (string, error) {
	source, found := p.volumes()[name]
	switch {
	case !found:
		return "", fmt.Errorf("there is no volume %q", name)
	case source.EmptyDir != nil:
		return filepath.Join(p.dir, "empty", name), nil
	case source.PersistentVolumeClaim != nil:
		return filepath.Join(p.claimsDir, source.PersistentVolumeClaim.ClaimName), nil
	case source.ConfigMap != nil, source.Secret != nil, source.Projected != nil, source.DownwardAPI != nil:
		return filepath.Join(p.dir, container, name), nil
	default:
		return "", fmt.Errorf("the kind of volume %q is not emulated", name)
	}
}

// fill writes the content of a volume that has one.
func (p *pod) fill(ctx context.Context, source corev1.VolumeSource, dir string, dirs mounts) ([]token, error) {
	projection := corev1.ProjectedVolumeSource{}
	switch {
	case source.ConfigMap != nil:
		projection.Sources = []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: source.ConfigMap.LocalObjectReference,
			Items:                source.ConfigMap.Items, Optional: source.ConfigMap.Optional,
		}}}
	case source.Secret != nil:
		projection.Sources = []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: source.Secret.SecretName},
			Items:                source.Secret.Items, Optional: source.Secret.Optional,
		}}}
	case source.DownwardAPI != nil:
		projection.Sources = []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: source.DownwardAPI.Items}}}
	case source.Projected != nil:
		projection = *source.Projected
	}
	var tokens []token
	for _, part := range projection.Sources {
		if part.ServiceAccountToken != nil {
			made, err := p.writeToken(ctx, part.ServiceAccountToken, dir)
			if err != nil {
				return nil, err
			}
			tokens = append(tokens, made)
			continue
		}
		files, err := p.files(ctx, part)
		if err != nil {
			return nil, err
		}
		if err := writeFiles(dir, files, dirs); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// writeToken puts a token of the pod's ServiceAccount into a volume.
func (p *pod) writeToken(ctx context.Context, projection *corev1.ServiceAccountTokenProjection, dir string) (token, error) {
	made := token{path: filepath.Join(dir, projection.Path), lifetime: defaultTokenLifetime}
	if seconds := ptr.Deref(projection.ExpirationSeconds, 0); seconds > 0 {
		made.lifetime = time.Duration(seconds) * time.Second
	}
	return made, p.renew(ctx, made)
}

// renew writes a token anew.
func (p *pod) renew(ctx context.Context, t token) error {
	return env.WriteTokenFile(ctx, p.client, p.serviceAccount(), t.lifetime, t.path)
}

// serviceAccount is the pod's.
func (p *pod) serviceAccount() client.ObjectKey {
	key := client.ObjectKey{Namespace: p.namespace, Name: p.template.Spec.ServiceAccountName}
	if key.Name == "" {
		key.Name = "default"
	}
	return key
}

// files are the content of one part of a projected volume, by path.
func (p *pod) files(ctx context.Context, part corev1.VolumeProjection) (map[string][]byte, error) {
	switch {
	case part.ConfigMap != nil:
		optional := ptr.Deref(part.ConfigMap.Optional, false)
		entries, err := p.configMap(ctx, part.ConfigMap.Name, optional)
		return selectItems(entries, part.ConfigMap.Items, optional, err)
	case part.Secret != nil:
		optional := ptr.Deref(part.Secret.Optional, false)
		entries, err := p.secret(ctx, part.Secret.Name, optional)
		return selectItems(entries, part.Secret.Items, optional, err)
	case part.DownwardAPI != nil:
		files := map[string][]byte{}
		for _, item := range part.DownwardAPI.Items {
			if item.FieldRef == nil {
				return nil, fmt.Errorf("the downward API entry %q is not emulated", item.Path)
			}
			value, err := p.field(item.FieldRef.FieldPath)
			if err != nil {
				return nil, err
			}
			files[item.Path] = []byte(value)
		}
		return files, nil
	default:
		return nil, fmt.Errorf("a projection of this kind is not emulated")
	}
}

// selectItems applies the items of a volume, of which none means all entries.
func selectItems(entries map[string][]byte, items []corev1.KeyToPath, optional bool, err error) (map[string][]byte, error) {
	if err != nil || len(items) == 0 {
		return entries, err
	}
	files := map[string][]byte{}
	for _, item := range items {
		value, found, err := pick(entries, item.Key, optional, nil)
		if err != nil {
			return nil, err
		}
		if found {
			files[item.Path] = []byte(value)
		}
	}
	return files, nil
}

// writeFiles writes files into a volume, with the paths in their text rewritten.
func writeFiles(dir string, files map[string][]byte, dirs mounts) error {
	for path, content := range files {
		if utf8.Valid(content) {
			content = []byte(dirs.rewrite(string(content)))
		}
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(full, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// configMap reads the entries of a ConfigMap of the pod's namespace.
func (p *pod) configMap(ctx context.Context, name string, optional bool) (map[string][]byte, error) {
	object := &corev1.ConfigMap{}
	err := p.client.Get(ctx, client.ObjectKey{Namespace: p.namespace, Name: name}, object)
	switch {
	case apierrors.IsNotFound(err) && name == rootCAConfigMap:
		return map[string][]byte{"ca.crt": p.config.CAData}, nil
	case apierrors.IsNotFound(err) && optional:
		return nil, nil
	case err != nil:
		return nil, err
	}
	entries := map[string][]byte{}
	for key, value := range object.Data {
		entries[key] = []byte(value)
	}
	for key, value := range object.BinaryData {
		entries[key] = value
	}
	return entries, nil
}

// secret reads the entries of a Secret of the pod's namespace.
func (p *pod) secret(ctx context.Context, name string, optional bool) (map[string][]byte, error) {
	object := &corev1.Secret{}
	err := p.client.Get(ctx, client.ObjectKey{Namespace: p.namespace, Name: name}, object)
	if apierrors.IsNotFound(err) && optional {
		return nil, nil
	}
	return object.Data, err
}
