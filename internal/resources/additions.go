package resources

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// addToPod adds spec.pod to the pod template, and refuses what conflicts with what the
// operator sets.
func addToPod(pod *corev1ac.PodTemplateSpecApplyConfiguration, headscale *v1beta1.Headscale, l *layout) error {
	added := &headscale.Spec.Pod
	if err := checkMetadata(headscale); err != nil {
		return err
	}
	if err := checkEnv(headscale); err != nil {
		return err
	}
	if err := checkVolumes(added, headscale.Spec.Backup); err != nil {
		return err
	}
	if err := checkMounts(added, headscale.Spec.Backup, l); err != nil {
		return err
	}
	pod.WithLabels(added.Labels).WithAnnotations(added.Annotations)
	pod.Spec.WithNodeSelector(added.NodeSelector)
	if added.PriorityClassName != "" {
		pod.Spec.WithPriorityClassName(added.PriorityClassName)
	}
	if err := addScheduling(pod.Spec, added); err != nil {
		return err
	}
	return addContents(pod.Spec, added)
}

// addScheduling says where the pod may run.
func addScheduling(pod *corev1ac.PodSpecApplyConfiguration, added *v1beta1.PodSpec) error {
	if added.Affinity != nil {
		if err := convert("pod.affinity", added.Affinity, &pod.Affinity); err != nil {
			return err
		}
	}
	if err := convert("pod.tolerations", added.Tolerations, &pod.Tolerations); err != nil {
		return err
	}
	return convert("pod.topology_spread_constraints", added.TopologySpreadConstraints, &pod.TopologySpreadConstraints)
}

// addContents adds environment, volumes and mounts behind those that are there.
func addContents(pod *corev1ac.PodSpecApplyConfiguration, added *v1beta1.PodSpec) error {
	var env []corev1ac.EnvVarApplyConfiguration
	var volumes []corev1ac.VolumeApplyConfiguration
	var mounts []corev1ac.VolumeMountApplyConfiguration
	if err := convert("pod.env", added.Env, &env); err != nil {
		return err
	}
	if err := convert("pod.volumes", added.Volumes, &volumes); err != nil {
		return err
	}
	if err := convert("pod.volume_mounts", added.VolumeMounts, &mounts); err != nil {
		return err
	}
	limitEmptyDirs(volumes)
	container := &pod.Containers[0]
	container.Env = append(container.Env, env...)
	container.VolumeMounts = append(container.VolumeMounts, mounts...)
	pod.Volumes = append(pod.Volumes, volumes...)
	return nil
}

// limitEmptyDirs gives a size limit to each emptyDir without one, with which Headscale could
// fill its node's disk. A limit that was written stays, also 0, which is none to the kubelet.
func limitEmptyDirs(volumes []corev1ac.VolumeApplyConfiguration) {
	for _, volume := range volumes {
		if volume.EmptyDir != nil && volume.EmptyDir.SizeLimit == nil {
			volume.EmptyDir.WithSizeLimit(scratchLimit)
		}
	}
}

// convert turns a section of the API into its apply configuration, which has the same
// JSON.
func convert(field string, from, into any) error {
	raw, err := json.Marshal(from)
	if err != nil {
		return invalid(field, "cannot be written: %v", err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return invalid(field, "cannot be read: %v", err)
	}
	return nil
}

// resourcesOf are a container's resources: what the user wrote, whole, or the default.
// Amounts are cut as the API server cuts them, to thousandths.
func resourcesOf(written *v1beta1.PodResources, byDefault *corev1ac.ResourceRequirementsApplyConfiguration) *corev1ac.ResourceRequirementsApplyConfiguration {
	if written == nil {
		return byDefault
	}
	result := corev1ac.ResourceRequirements()
	if len(written.Requests) > 0 {
		result.WithRequests(rounded(written.Requests))
	}
	if len(written.Limits) > 0 {
		result.WithLimits(rounded(written.Limits))
	}
	return result
}

// rounded rounds amounts up to thousandths.
func rounded(list corev1.ResourceList) corev1.ResourceList {
	result := corev1.ResourceList{}
	for name, amount := range list {
		amount = amount.DeepCopy()
		amount.RoundUp(resource.Milli)
		result[name] = amount
	}
	return result
}

// checkMetadata refuses labels and annotations that the operator sets.
func checkMetadata(headscale *v1beta1.Headscale) error {
	own := labels(headscale, componentServer)
	for _, key := range slices.Sorted(maps.Keys(headscale.Spec.Pod.Labels)) {
		if _, taken := own[key]; taken {
			return invalid("pod.labels", "must not have %s: the operator sets it and finds its pods by it", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(headscale.Spec.Pod.Annotations)) {
		if key == annotationDefaultContainer || strings.HasPrefix(key, v1beta1.GroupName+"/") {
			return invalid("pod.annotations", "must not have %s: the operator sets it", key)
		}
		if profile := headscale.Spec.Pod.Annotations[key]; looseProfile(key, profile) {
			return invalid("pod.annotations", "must not have %s: %s, which the restricted Pod Security Standard does not allow: write runtime/default or localhost/ and a profile", key, profile)
		}
	}
	return nil
}

// profileAnnotations begin the annotations by which the profiles of AppArmor and seccomp
// were chosen before they were fields, and by which the Pod Security Standards still judge.
var profileAnnotations = []string{
	"container.apparmor.security.beta.kubernetes.io/",
	"container.seccomp.security.alpha.kubernetes.io/",
	"seccomp.security.alpha.kubernetes.io/",
}

// looseProfile reports whether an annotation chooses a profile that confines less than the
// runtime's own.
func looseProfile(key, profile string) bool {
	chooses := slices.ContainsFunc(profileAnnotations, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
	return chooses && profile != "runtime/default" && !strings.HasPrefix(profile, "localhost/")
}

// ownSettings are the settings that the pod's ports, volumes and probes follow from:
// Headscale would take them from its environment too, and the pod would not fit.
var ownSettings = []string{
	"listen_addr", "metrics_listen_addr", "grpc_listen_addr", "unix_socket", "unix_socket_permission",
	"tls_cert_path", "tls_key_path", "tls_letsencrypt_hostname", "tls_letsencrypt_cache_dir",
	"tls_letsencrypt_listen", "tls_letsencrypt_challenge_type",
	"database.type", "database.sqlite.path", "noise.private_key_path",
	"derp.server.enabled", "derp.server.stun_listen_addr", "derp.server.private_key_path",
}

// variableOf is the environment variable from which Headscale takes a setting.
func variableOf(setting string) string {
	return "HEADSCALE_" + strings.ToUpper(strings.ReplaceAll(setting, ".", "_"))
}

// checkEnv refuses variables that would change what the operator reads in the config,
// or that a Secret gives.
func checkEnv(headscale *v1beta1.Headscale) error {
	settings := slices.Clone(ownSettings)
	for _, file := range referencedFiles(&headscale.Spec) {
		settings = append(settings, file.setting)
	}
	replaced := replacedSettings(&headscale.Spec)
	for _, variable := range headscale.Spec.Pod.Env {
		for _, setting := range settings {
			if variable.Name == variableOf(setting) {
				return invalid("pod.env", "must not have %s, because the operator sets it from the config: set spec.config.%s", variable.Name, setting)
			}
		}
		for _, setting := range slices.Sorted(maps.Keys(replaced)) {
			if variable.Name == variableOf(setting) {
				return invalid("pod.env", "must not have %s where spec.%s is set", variable.Name, replaced[setting])
			}
		}
	}
	return nil
}

// replacedSettings are the settings whose place is taken by a field that refers to a
// Secret or a ConfigMap, with that field.
func replacedSettings(spec *v1beta1.HeadscaleSpec) map[string]string {
	replaced := map[string]string{}
	if spec.Secrets.DatabasePassword != nil {
		replaced["database.postgres.pass"] = "secrets.database_password"
	}
	if spec.Secrets.OIDCClientSecret != nil {
		replaced["oidc.client_secret"] = "secrets.oidc_client_secret"
	}
	if spec.Files.Policy != nil {
		replaced["policy.mode"] = "files.policy"
	}
	if spec.Files.ExtraDNSRecords != nil {
		replaced["dns.extra_records"] = "files.extra_dns_records"
	}
	return replaced
}

// checkVolumes refuses names that the pod's own volumes have.
func checkVolumes(added *v1beta1.PodSpec, backup *v1beta1.BackupSpec) error {
	taken := []string{volumeConfig, volumeData, volumeFiles, volumeSocket, volumeTmp, volumeToken}
	if backup != nil {
		taken = append(taken, volumeBackup, volumeBackupFiles, volumeIdentity, volumeIdentitySecret)
	}
	for _, volume := range added.Volumes {
		if slices.Contains(taken, volume.Name) {
			return invalid("pod.volumes", "must not have the name %s, which a volume of the operator's has: choose another, such as my-%[1]s", volume.Name)
		}
	}
	return nil
}

// checkMounts refuses mounts of volumes that there are none of, and mounts where the
// pod's own volumes are.
func checkMounts(added *v1beta1.PodSpec, backup *v1beta1.BackupSpec, l *layout) error {
	taken := []string{configDir, filesDir, l.dataDir, l.socketDir(), tmpDir, tokenDir}
	if backup != nil {
		taken = append(taken, backupDir, backupFilesDir)
	}
	for _, m := range added.VolumeMounts {
		if !slices.ContainsFunc(added.Volumes, func(volume v1beta1.PodVolume) bool { return volume.Name == m.Name }) {
			return invalid("pod.volume_mounts", "has the volume %q, which is not in spec.pod.volumes: add it there", m.Name)
		}
		if !path.IsAbs(m.MountPath) {
			return invalid("pod.volume_mounts", "has the mountPath %q, which must be absolute, such as /etc/my-files", m.MountPath)
		}
		for _, dir := range taken {
			if overlap(path.Clean(m.MountPath), dir) {
				return invalid("pod.volume_mounts", "has the mountPath %s, which conflicts with %s: choose a directory of its own", m.MountPath, dir)
			}
		}
	}
	return nil
}
