package podrunner

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/env"
)

// tokenPath is where a client in a pod finds the token of its ServiceAccount.
const tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// rootCAConfigMap is published into every namespace by a controller that does
// not run here, so its content is supplied where it is missing.
const rootCAConfigMap = "kube-root-ca.crt"

// mount prepares the volumes of one container and returns its mounts.
// Volumes that have content of their own are made for each container anew,
// because paths in them are rewritten to the mounts of that container.
func (p *pod) mount(ctx context.Context, container *corev1.Container) (mounts, error) {
	dirs := mounts{}
	byDir := map[string]corev1.Volume{}
	volumes := p.template.Spec.Volumes
	for _, volumeMount := range container.VolumeMounts {
		i := slices.IndexFunc(volumes, func(volume corev1.Volume) bool { return volume.Name == volumeMount.Name })
		if i < 0 {
			return nil, fmt.Errorf("container %s: there is no volume %q", container.Name, volumeMount.Name)
		}
		dir := p.volumeDir(container.Name, volumes[i])
		byDir[dir] = volumes[i]
		dirs[strings.TrimSuffix(volumeMount.MountPath, "/")] = filepath.Join(dir, volumeMount.SubPath)
	}
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		volume := byDir[dir]
		if err := p.fill(ctx, volume.VolumeSource, dir, dirs); err != nil {
			return nil, fmt.Errorf("volume %s: %w", volume.Name, err)
		}
	}
	return dirs, nil
}

// volumeDir is the directory that stands for a volume in a container. Names are
// kept short, for the sake of sockets.
func (p *pod) volumeDir(container string, volume corev1.Volume) string {
	switch {
	case volume.EmptyDir != nil:
		return filepath.Join(p.dir, "empty", volume.Name)
	case volume.PersistentVolumeClaim != nil:
		return filepath.Join(p.claimsDir, volume.PersistentVolumeClaim.ClaimName)
	default:
		return filepath.Join(p.dir, container, volume.Name)
	}
}

// fill makes the directory of a volume, and writes the content of one that has one.
func (p *pod) fill(ctx context.Context, source corev1.VolumeSource, dir string, dirs mounts) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	parts, err := projections(source)
	if err != nil {
		return err
	}
	for _, part := range parts {
		files, err := p.files(ctx, part)
		if err != nil {
			return err
		}
		if err := writeFiles(dir, files, dirs); err != nil {
			return err
		}
	}
	return nil
}

// projections are the content of a volume, as that of a projected one.
func projections(source corev1.VolumeSource) ([]corev1.VolumeProjection, error) {
	switch {
	case source.EmptyDir != nil, source.PersistentVolumeClaim != nil:
		return nil, nil
	case source.ConfigMap != nil:
		from := source.ConfigMap
		return []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: from.LocalObjectReference, Items: from.Items,
		}}}, nil
	case source.Secret != nil:
		return []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: source.Secret.SecretName}, Items: source.Secret.Items, Optional: source.Secret.Optional,
		}}}, nil
	case source.Projected != nil:
		return source.Projected.Sources, nil
	default:
		return nil, fmt.Errorf("a volume of this kind is not emulated")
	}
}

// files are the content of one part of a projected volume, by path.
func (p *pod) files(ctx context.Context, part corev1.VolumeProjection) (map[string][]byte, error) {
	switch {
	case part.ConfigMap != nil:
		return p.entries(ctx, &corev1.ConfigMap{}, part.ConfigMap.Name, part.ConfigMap.Items, nil)
	case part.Secret != nil:
		return p.entries(ctx, &corev1.Secret{}, part.Secret.Name, part.Secret.Items, part.Secret.Optional)
	case part.DownwardAPI != nil:
		files := map[string][]byte{}
		for _, item := range part.DownwardAPI.Items {
			value, err := p.field(item.FieldRef)
			if err != nil {
				return nil, err
			}
			files[item.Path] = []byte(value)
		}
		return files, nil
	case part.ServiceAccountToken != nil:
		account := client.ObjectKey{Namespace: p.namespace, Name: cmp.Or(p.template.Spec.ServiceAccountName, "default")}
		token, err := env.Token(ctx, p.runner.options.Client, account)
		return map[string][]byte{part.ServiceAccountToken.Path: []byte(token)}, err
	default:
		return nil, fmt.Errorf("a projection of this kind is not emulated")
	}
}

// entries reads a ConfigMap or a Secret of the pod's namespace: the items, by
// their paths, or all entries where there are none. What is optional may be missing.
func (p *pod) entries(ctx context.Context, object client.Object, name string, items []corev1.KeyToPath, optional *bool) (map[string][]byte, error) {
	err := p.runner.options.Client.Get(ctx, client.ObjectKey{Namespace: p.namespace, Name: name}, object)
	all := map[string][]byte{}
	switch from := object.(type) {
	case *corev1.ConfigMap:
		maps.Copy(all, from.BinaryData)
		for key, value := range from.Data {
			if line, rest, _ := strings.Cut(value, "\n"); strings.HasPrefix(line, "addr: ") { // Litestream's metrics
				moved, err := p.runner.ports.move(strings.TrimPrefix(line, "addr: "))
				if err != nil {
					return nil, err
				}
				value = "addr: " + moved + "\n" + rest
			}
			all[key] = []byte(value)
		}
		if apierrors.IsNotFound(err) && name == rootCAConfigMap {
			all["ca.crt"], err = p.runner.options.Config.CAData, nil
		}
	case *corev1.Secret:
		all = from.Data
	}
	mayMiss := optional != nil && *optional
	if mayMiss {
		err = client.IgnoreNotFound(err)
	}
	if err != nil || len(items) == 0 {
		return all, err
	}
	files := map[string][]byte{}
	for _, item := range items {
		value, found := all[item.Key]
		if !found && mayMiss {
			continue
		}
		if !found {
			return nil, fmt.Errorf("%s has no entry %q, only %q", name, item.Key, slices.Sorted(maps.Keys(all)))
		}
		files[item.Path] = value
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
