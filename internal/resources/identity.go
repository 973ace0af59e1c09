package resources

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	rbacv1ac "k8s.io/client-go/applyconfigurations/rbac/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// ContainerIdentity is the name of the container that gives an empty volume Headscale's private
// keys before Headscale makes others.
const ContainerIdentity = "restore-identity"

const (
	// identitySuffix ends the name of the Secret.
	identitySuffix = "-identity"

	// volumeIdentity has a copy of the keys, in memory, and volumeIdentitySecret those of the Secret.
	volumeIdentity, volumeIdentitySecret = "identity", "identity-secret"
	// identityDir and identitySecretDir are where they are mounted.
	identityDir, identitySecretDir = "/var/run/headscale-identity", "/etc/headscale-identity"
)

// identityLimit is the size of the volume for the copy.
var identityLimit = resource.MustParse("64Ki")

// IdentityName is the name of the Secret that keeps the private keys of a Headscale with a backup.
func IdentityName(headscale *v1beta1.Headscale) string { return headscale.Name + identitySuffix }

// KeepsIdentity reports whether the API Key Manager of a Headscale keeps its private keys, as long
// as its config has them on the data volume, where operatorsImage is the operator's own.
func KeepsIdentity(headscale *v1beta1.Headscale, operatorsImage string) bool {
	secrets := &headscale.Spec.Secrets
	return headscale.Spec.Backup != nil && headscale.Spec.APIKey.Managed() && !managerIsPinned(headscale, operatorsImage) &&
		(secrets.NoisePrivateKey == nil || secrets.DERPPrivateKey == nil)
}

// managerIsPinned reports whether a Headscale names another image of the API Key Manager than the
// operator's. That may be of a release which knows nothing of private keys: it would end with an
// error, and Headscale would not start.
func managerIsPinned(headscale *v1beta1.Headscale, operatorsImage string) bool {
	image := headscale.Spec.APIKey.ManagerImage
	return image != "" && image != operatorsImage
}

// identityKey is a private key that is a file on the data volume.
type identityKey struct {
	// entry is that of the Secret, and path the file's path below the data directory.
	entry, path string
}

// identityKeys lists the private keys that are lost with the data volume. One that comes from a
// Secret of the user's, or is a file elsewhere, is not.
func identityKeys(config document, headscale *v1beta1.Headscale, l *layout) ([]identityKey, error) {
	relay, err := config.flag("derp.server.enabled")
	if err != nil {
		return nil, err
	}
	secrets := &headscale.Spec.Secrets
	var keys []identityKey
	for _, key := range []struct {
		entry, setting string
		wanted         bool
	}{
		{v1beta1.EntryNoiseKey, "noise.private_key_path", secrets.NoisePrivateKey == nil},
		{v1beta1.EntryDERPKey, "derp.server.private_key_path", relay && secrets.DERPPrivateKey == nil},
	} {
		file, err := config.text(key.setting)
		if err != nil {
			return nil, err
		}
		if below, onVolume := strings.CutPrefix(path.Clean(file), strings.TrimSuffix(l.dataDir, "/")+"/"); key.wanted && onVolume {
			keys = append(keys, identityKey{key.entry, below})
		}
	}
	return keys, nil
}

// addIdentity has the private keys of a Headscale with a backup kept in a Secret, and brought
// back from there.
func addIdentity(objects *Objects, pod *corev1ac.PodSpecApplyConfiguration, config document, headscale *v1beta1.Headscale, l *layout, options *Options) error {
	if headscale.Spec.Backup == nil {
		return nil
	}
	keys, err := identityKeys(config, headscale, l)
	if err != nil || len(keys) == 0 {
		return err
	}
	if !headscale.Spec.APIKey.Managed() {
		objects.Warnings = append(objects.Warnings, "the backup has the database and not Headscale's private keys, which are files on the same volume: "+
			"set spec.api_key.auto_manage to true, or keep them in a Secret that spec.secrets.noise_private_key and spec.secrets.derp_private_key name")
		return nil
	}
	if managerIsPinned(headscale, options.ManagerImage) {
		objects.Warnings = append(objects.Warnings, "Headscale's private keys are not kept and would be lost with the data volume, because spec.api_key.manager_image names another image than the operator's, which may be older: "+
			"leave it out (a mirror can be the operator's --manager-image), or keep the keys in a Secret that spec.secrets.noise_private_key and spec.secrets.derp_private_key name")
		return nil
	}
	if headscale.Spec.APIKey.EffectiveSecretName() == IdentityName(headscale) {
		return invalid("api_key.secret_name", "must not be %s where spec.backup is set, because Headscale's private keys are kept in the Secret of that name: choose another", IdentityName(headscale))
	}
	for _, key := range keys {
		objects.IdentityKeys = append(objects.IdentityKeys, key.entry)
	}
	for i := range pod.Containers {
		if manager := &pod.Containers[i]; *manager.Name == ContainerManager {
			manager.WithArgs("--identity-secret="+IdentityName(headscale), "--identity-dir="+identityDir).
				WithVolumeMounts(mount(volumeIdentity, identityDir).WithReadOnly(true))
			// The database first: a volume that is not restored yet has no key of its own.
			at := 1 + slices.IndexFunc(pod.InitContainers, func(c corev1ac.ContainerApplyConfiguration) bool { return *c.Name == ContainerRestore })
			pod.InitContainers = slices.Insert(pod.InitContainers, at, *restoreIdentity(headscale, l, *manager.Image, keys, options.IdentityIsForeign))
		}
	}
	pod.WithVolumes(identityVolume())
	if !options.IdentityIsForeign {
		pod.WithVolumes(identitySecretVolume(headscale, keys))
	}
	return nil
}

// restoreIdentity writes the keys to a volume that has none. It has no token. A Secret of somebody
// else's is not there for it.
func restoreIdentity(headscale *v1beta1.Headscale, l *layout, image string, keys []identityKey, foreign bool) *corev1ac.ContainerApplyConfiguration {
	container := corev1ac.Container().
		WithName(ContainerIdentity).
		WithImage(image).
		WithImagePullPolicy(corev1.PullIfNotPresent).
		WithArgs("restore-identity", "--data-dir="+l.dataDir, "--secret-dir="+identitySecretDir, "--copy-dir="+identityDir).
		WithSecurityContext(containerSecurity()).
		WithResources(resourcesOf(headscale.Spec.Pod.ManagerResources, defaultManagerResources())).
		WithTerminationMessagePolicy(corev1.TerminationMessageFallbackToLogsOnError).
		WithVolumeMounts(
			mount(volumeData, l.dataDir),
			mount(volumeIdentity, identityDir))
	if !foreign {
		container.WithVolumeMounts(mount(volumeIdentitySecret, identitySecretDir).WithReadOnly(true))
	}
	for _, key := range keys {
		container.WithArgs(key.entry + "=" + key.path)
	}
	return container
}

// identityVolume is for the copy of the keys that the API Key Manager reads: it need not read
// the data volume. It is in memory, so that no key is written to the node's disk.
func identityVolume() *corev1ac.VolumeApplyConfiguration {
	volume := emptyDir(volumeIdentity, identityLimit)
	volume.EmptyDir.WithMedium(corev1.StorageMediumMemory)
	return volume
}

// identitySecretVolume has the keys of the Secret, for the pod's group only. There may be no such
// Secret yet.
func identitySecretVolume(headscale *v1beta1.Headscale, keys []identityKey) *corev1ac.VolumeApplyConfiguration {
	secret := corev1ac.SecretVolumeSource().WithSecretName(IdentityName(headscale)).WithOptional(true).WithDefaultMode(0o440)
	for _, key := range keys {
		secret.WithItems(corev1ac.KeyToPath().WithKey(key.entry).WithPath(key.entry))
	}
	return corev1ac.Volume().WithName(volumeIdentitySecret).WithSecret(secret)
}

// addIdentityRights lets the API Key Manager keep the private keys in their Secret, unless that is
// somebody else's.
func addIdentityRights(role *rbacv1ac.RoleApplyConfiguration, headscale *v1beta1.Headscale, objects *Objects, options Options) *rbacv1ac.RoleApplyConfiguration {
	if len(objects.IdentityKeys) == 0 || options.IdentityIsForeign {
		return role
	}
	return role.WithRules(rbacv1ac.PolicyRule().WithAPIGroups("").WithResources("secrets").
		WithResourceNames(IdentityName(headscale)).
		WithVerbs("get", "patch"))
}
