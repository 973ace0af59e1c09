package resources

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	batchv1ac "k8s.io/client-go/applyconfigurations/batch/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// AnnotationPreflightDigest is on the Job of a preflight: the digest of what it checks.
const AnnotationPreflightDigest = v1beta1.GroupName + "/preflight-digest"

// AnnotationPreflightAttempt is on the Job of a preflight: which attempt it is, from 1.
const AnnotationPreflightAttempt = v1beta1.GroupName + "/preflight-attempt"

// PreflightDeadline is how long one attempt may take in seconds, the pull of a new image
// included.
const PreflightDeadline = 180

const (
	// policyFile is the entry with the policy, and the name of the file, in configDir.
	policyFile = "policy.hujson"
	// preflightSuffix ends the names of the Job and of the ConfigMap.
	preflightSuffix = "-preflight"
	// componentPreflight is the value of the component label.
	componentPreflight = "preflight"
	// preflightGrace is how long Headscale has to end, in seconds. It has no data to save.
	preflightGrace = 5
	// preflightKept is how long a Job that ended stays where no operator deletes it, in seconds.
	preflightKept = 600
	// preferredWeight is the most that a preference for a node may weigh.
	preferredWeight = 100
	// preflightIncarnation is what Litestream's config has for the incarnation: a place that no
	// backup is at.
	preflightIncarnation = componentPreflight
	// preflightGate is a condition that nobody sets, so that the pod is never ready: whatever
	// labels it has, no Service sends anyone to a Headscale with an empty database.
	preflightGate = v1beta1.GroupName + "/never-ready"
)

// preflightDataLimit is the size of the directory in place of the data volume: an empty
// database and private keys.
var preflightDataLimit = resource.MustParse("256Mi")

// Preflight is how the pod of a Headscale is checked: its container is started once, on a
// copy of the config and an empty database, after Litestream has read its config, where there is a
// backup.
type Preflight struct {
	// Digest is that of all that is checked.
	Digest string
	// ConfigMap holds the config, under a name of its own: what runs keeps the one it has.
	ConfigMap *corev1ac.ConfigMapApplyConfiguration
	// Job runs the pod. Its name is always the same, so that there is one at a time.
	Job *batchv1ac.JobApplyConfiguration
}

// PreflightName is the name of the Job and of the ConfigMap of a preflight.
func PreflightName(headscale *v1beta1.Headscale) string {
	return headscale.Name + preflightSuffix
}

// PreflightLabels are the labels by which the pods of a preflight are found. They are not
// those by which Services and the StatefulSet find the pod of Headscale.
func PreflightLabels(headscale *v1beta1.Headscale) map[string]string {
	return map[string]string{
		labelName:              nameHeadscale + preflightSuffix,
		v1beta1.LabelManagedBy: v1beta1.ManagedBy,
		v1beta1.LabelComponent: componentPreflight,
		LabelHeadscale:         headscale.Name,
	}
}

// Attempt is what one attempt of a preflight depends on besides the objects of a Headscale.
type Attempt struct {
	// Number counts the attempts from 1.
	Number int32
	// LiveReferences is a digest of the data that the Headscale reads again by itself, which
	// are not in Options.References, or "".
	LiveReferences string
	// Policy is the policy in the database of the Headscale, or "" where none is tried. The
	// preflight reads it from a file.
	Policy string
	// Node is where the pod of the Headscale runs, or "". The preflight is best run there: with
	// the image that is there, and the volumes that can be used on one node only.
	Node string
}

// NewPreflight returns the preflight of these objects of a Headscale.
func NewPreflight(headscale *v1beta1.Headscale, objects *Objects, attempt Attempt) (*Preflight, error) {
	pod, err := preflightPod(headscale, objects)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("encoding the pod of the preflight: %w", err)
	}
	sum := sha256.Sum256(append(append(text, attempt.LiveReferences...), attempt.Policy...))
	digest := hex.EncodeToString(sum[:])
	preferNode(pod.Spec, attempt.Node)
	config := configMap(headscale, objects.ConfigMap.Data[ConfigFile]).WithName(PreflightName(headscale)).
		WithLabels(map[string]string{v1beta1.LabelComponent: componentPreflight})
	if objects.BackupConfigMap != nil {
		config.WithData(map[string]string{backupConfig: objects.BackupConfigMap.Data[backupConfig]})
	}
	if attempt.Policy != "" {
		config.WithData(map[string]string{policyFile: attempt.Policy})
		readPolicy(pod.Spec)
	}
	job := batchv1ac.Job(PreflightName(headscale), headscale.Namespace).
		WithLabels(labels(headscale, componentPreflight)).
		WithAnnotations(map[string]string{AnnotationPreflightDigest: digest, AnnotationPreflightAttempt: strconv.Itoa(int(attempt.Number))}).
		WithOwnerReferences(owner(headscale)).
		WithSpec(batchv1ac.JobSpec().
			WithBackoffLimit(0).
			WithActiveDeadlineSeconds(PreflightDeadline).
			WithTTLSecondsAfterFinished(preflightKept).
			WithTemplate(pod))
	return &Preflight{Digest: digest, ConfigMap: config, Job: job}, nil
}

// PreflightSize is how much the ConfigMap of a preflight holds besides a policy, in bytes.
func (o *Objects) PreflightSize() int {
	size := len(o.ConfigMap.Data[ConfigFile])
	if o.BackupConfigMap != nil {
		size += len(o.BackupConfigMap.Data[backupConfig])
	}
	return size
}

// readPolicy has Headscale read the policy from the ConfigMap of the preflight: its database has
// none.
func readPolicy(pod *corev1ac.PodSpecApplyConfiguration) {
	for i := range pod.Volumes {
		if volume := &pod.Volumes[i]; *volume.Name == volumeConfig {
			volume.ConfigMap.WithItems(corev1ac.KeyToPath().WithKey(policyFile).WithPath(policyFile))
		}
	}
	pod.Containers[0].WithEnv(
		corev1ac.EnvVar().WithName(PolicyModeVariable).WithValue("file"),
		corev1ac.EnvVar().WithName(variableOf("policy.path")).WithValue(path.Join(configDir, policyFile)),
	)
}

// PolicyModeVariable is the variable of the container by which Headscale takes another policy.mode than that
// of its config.
const PolicyModeVariable = "HEADSCALE_POLICY_MODE"

// PolicyInDatabase reports whether Headscale reads its policy from its database, by its completed
// config and the variables of its container. Headscale takes an empty one for none.
func PolicyInDatabase(config map[string]any, env []corev1.EnvVar) bool {
	// Headscale itself refuses a section that is none.
	mode, _ := document(config).text("policy.mode")
	for i := range env {
		switch variable := &env[i]; {
		case variable.Name != PolicyModeVariable:
		case variable.ValueFrom != nil:
			mode = ""
		case variable.Value != "":
			mode = variable.Value
		}
	}
	return mode == "database"
}

// preferNode has a pod run on a node if it can.
func preferNode(pod *corev1ac.PodSpecApplyConfiguration, node string) {
	if node == "" {
		return
	}
	if pod.Affinity == nil {
		pod.Affinity = corev1ac.Affinity()
	}
	if pod.Affinity.NodeAffinity == nil {
		pod.Affinity.NodeAffinity = corev1ac.NodeAffinity()
	}
	pod.Affinity.NodeAffinity.WithPreferredDuringSchedulingIgnoredDuringExecution(corev1ac.PreferredSchedulingTerm().
		WithWeight(preferredWeight).
		WithPreference(corev1ac.NodeSelectorTerm().WithMatchFields(corev1ac.NodeSelectorRequirement().
			WithKey(metav1.ObjectNameField).WithOperator(corev1.NodeSelectorOpIn).WithValues(node))))
}

// preflightPod is the pod of a Headscale without what it must not reach and does not need: the
// data, the API key, the rights on it, and those who would be sent to it. Litestream, if there is a
// backup, reads its config first.
func preflightPod(headscale *v1beta1.Headscale, objects *Objects) (*corev1ac.PodTemplateSpecApplyConfiguration, error) {
	pod := corev1ac.PodTemplateSpec()
	if err := convert("pod", objects.StatefulSet.Spec.Template, pod); err != nil {
		return nil, err
	}
	delete(pod.Labels, labelInstance)
	pod.WithLabels(PreflightLabels(headscale))
	spec := pod.Spec
	spec.Containers = slices.DeleteFunc(spec.Containers, func(c corev1ac.ContainerApplyConfiguration) bool { return *c.Name != ContainerHeadscale })
	spec.InitContainers = slices.DeleteFunc(spec.InitContainers, func(c corev1ac.ContainerApplyConfiguration) bool { return *c.Name != ContainerBackup })
	spec.Volumes = preflightVolumes(headscale, spec.Volumes)
	for i := range spec.InitContainers {
		readBackupConfig(&spec.InitContainers[i], spec.Volumes)
	}
	spec.WithRestartPolicy(corev1.RestartPolicyNever).
		WithTerminationGracePeriodSeconds(preflightGrace).
		WithReadinessGates(corev1ac.PodReadinessGate().WithConditionType(preflightGate))
	return pod, preflightContainer(&spec.Containers[0], spec.Volumes)
}

// readBackupConfig has Litestream read its config, make of it the database and the replica that it
// would replicate, and end. It asks no storage, and looks for no database. Litestream reads the
// same config in the same way before it replicates.
func readBackupConfig(container *corev1ac.ContainerApplyConfiguration, volumes []corev1ac.VolumeApplyConfiguration) {
	container.RestartPolicy, container.LivenessProbe, container.Ports = nil, nil, nil
	container.Args = []string{"databases", "-config=" + backupDir + "/" + backupConfig}
	for i := range container.Env {
		if *container.Env[i].Name == variablePath {
			container.Env[i] = *corev1ac.EnvVar().WithName(variablePath).WithValue(preflightIncarnation)
		}
	}
	readClaims(container, volumes)
}

// readClaims has a container no more than read the claims.
func readClaims(container *corev1ac.ContainerApplyConfiguration, volumes []corev1ac.VolumeApplyConfiguration) {
	for i := range container.VolumeMounts {
		m := &container.VolumeMounts[i]
		if slices.ContainsFunc(volumes, func(v corev1ac.VolumeApplyConfiguration) bool {
			return *v.Name == *m.Name && v.PersistentVolumeClaim != nil
		}) {
			m.WithReadOnly(true)
		}
	}
}

// preflightContainer gives a container an empty SQLite database, whatever its config says, and
// has the kubelet ask soon whether it answers.
func preflightContainer(container *corev1ac.ContainerApplyConfiguration, volumes []corev1ac.VolumeApplyConfiguration) error {
	readClaims(container, volumes)
	dataDir := ""
	for i := range container.VolumeMounts {
		if m := &container.VolumeMounts[i]; *m.Name == volumeData {
			dataDir = *m.MountPath
		}
	}
	if dataDir == "" {
		return fmt.Errorf("the container %s has no volume %s", *container.Name, volumeData)
	}
	// This one would have Headscale join a tailnet.
	container.Env = slices.DeleteFunc(container.Env, func(v corev1ac.EnvVarApplyConfiguration) bool {
		return strings.HasPrefix(*v.Name, "HEADSCALE_DEBUG_TAILSQL_")
	})
	container.WithEnv(
		corev1ac.EnvVar().WithName(variableOf("database.type")).WithValue("sqlite"),
		corev1ac.EnvVar().WithName(variableOf("database.sqlite.path")).WithValue(path.Join(dataDir, "preflight.sqlite")),
	)
	container.LivenessProbe, container.StartupProbe = nil, nil
	container.ReadinessProbe.WithPeriodSeconds(1)
	return nil
}

// preflightVolumes are the volumes of a pod, with a config of its own and an empty directory in
// place of the data volume. It has no tokens. Claims of the user's are there to be read.
func preflightVolumes(headscale *v1beta1.Headscale, volumes []corev1ac.VolumeApplyConfiguration) []corev1ac.VolumeApplyConfiguration {
	kept := []corev1ac.VolumeApplyConfiguration{*emptyDir(volumeData, preflightDataLimit)}
	for i := range volumes {
		volume := volumes[i]
		switch {
		case slices.Contains(backups, *volume.Name):
			if volume.ConfigMap != nil {
				volume.ConfigMap.WithName(PreflightName(headscale)).Items = []corev1ac.KeyToPathApplyConfiguration{
					*corev1ac.KeyToPath().WithKey(backupConfig).WithPath(backupConfig),
				}
			}
		case slices.Contains(managers, *volume.Name):
			continue
		case *volume.Name == volumeConfig:
			volume.ConfigMap.WithName(PreflightName(headscale))
		case volume.PersistentVolumeClaim != nil:
			volume.PersistentVolumeClaim.WithReadOnly(true)
		case volume.Projected != nil:
			volume.Projected.Sources = slices.DeleteFunc(volume.Projected.Sources, func(source corev1ac.VolumeProjectionApplyConfiguration) bool {
				return source.ServiceAccountToken != nil || source.PodCertificate != nil
			})
		}
		kept = append(kept, volume)
	}
	return kept
}

// managers are the volumes of the API Key Manager, and backups those of Litestream, which Headscale
// itself does not mount.
var (
	managers = []string{volumeToken, volumeIdentity, volumeIdentitySecret}
	backups  = []string{volumeBackup, volumeBackupFiles}
)

// SamePod reports whether a pod runs Headscale, and Litestream if it does that, in the way in which
// another one did: with the same image, config, files and environment. What else differs needs no
// preflight, such as resources, labels and the API Key Manager, and that there is no backup any more.
func SamePod(before, after *corev1.PodTemplateSpec) bool {
	was, is := runtimeOf(before), runtimeOf(after)
	if is.Backup == nil {
		was.Backup = nil
	}
	wasText, wasErr := json.Marshal(was)
	isText, isErr := json.Marshal(is)
	return wasErr == nil && isErr == nil && bytes.Equal(wasText, isText)
}

// podRuntime is what of a pod a start of Headscale depends on.
type podRuntime struct {
	Version, Config, References string
	Headscale                   containerRuntime
	Volumes                     []corev1.Volume
	PodSecurity                 *corev1.PodSecurityContext
	PullSecrets                 []corev1.LocalObjectReference
	// Backup is nil where there is none.
	Backup *backupRuntime
}

// backupRuntime is what of a pod a start of Litestream depends on besides.
type backupRuntime struct {
	Config     string
	Litestream containerRuntime
	Volumes    []corev1.Volume
}

// containerRuntime is what of a container a start of its program depends on.
type containerRuntime struct {
	Image         string
	Command, Args []string
	Env           []corev1.EnvVar
	EnvFrom       []corev1.EnvFromSource
	Mounts        []corev1.VolumeMount
	Security      *corev1.SecurityContext
}

// runtimeOf is that part of a pod.
func runtimeOf(pod *corev1.PodTemplateSpec) *podRuntime {
	part := &podRuntime{
		Version: VersionOf(pod.Labels), Config: pod.Annotations[AnnotationConfigHash], References: pod.Annotations[AnnotationReferences],
		PodSecurity: pod.Spec.SecurityContext, PullSecrets: pod.Spec.ImagePullSecrets,
	}
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == ContainerHeadscale {
			part.Headscale = runtimeOfContainer(c)
		}
	}
	part.Volumes = slices.DeleteFunc(slices.Clone(pod.Spec.Volumes), func(v corev1.Volume) bool {
		return slices.Contains(managers, v.Name) || slices.Contains(backups, v.Name)
	})
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == ContainerBackup {
			part.Backup = &backupRuntime{
				Config: pod.Annotations[AnnotationBackupHash], Litestream: runtimeOfContainer(c),
				Volumes: slices.DeleteFunc(slices.Clone(pod.Spec.Volumes), func(v corev1.Volume) bool { return !slices.Contains(backups, v.Name) }),
			}
			// A preflight has others.
			part.Backup.Litestream.Command, part.Backup.Litestream.Args = nil, nil
		}
	}
	return part
}

// runtimeOfContainer is that part of a container.
func runtimeOfContainer(c *corev1.Container) containerRuntime {
	return containerRuntime{
		Image: c.Image, Command: c.Command, Args: c.Args, Env: c.Env, EnvFrom: c.EnvFrom, Mounts: c.VolumeMounts, Security: c.SecurityContext,
	}
}

// HeadscaleOfPreflight is the name of the Headscale whose preflight an object with these labels
// is of, or "".
func HeadscaleOfPreflight(labels map[string]string) string {
	if labels[v1beta1.LabelComponent] != componentPreflight {
		return ""
	}
	return labels[LabelHeadscale]
}
