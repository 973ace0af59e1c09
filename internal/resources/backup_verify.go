package resources

import (
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	batchv1ac "k8s.io/client-go/applyconfigurations/batch/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// AnnotationVerifyIncarnation is on the Job that verifies a backup: the incarnation that it restores.
const AnnotationVerifyIncarnation = v1beta1.GroupName + "/verify-incarnation"

// VerifyDeadline is how long a verification may take in seconds, the pull of the image included.
const VerifyDeadline = 1800

// ContainerCount is the name of the container that counts the rows of a backup that was restored.
const ContainerCount = "count-rows"

const (
	// verifySuffix ends the name of the Job, and componentVerify is the value of the component label.
	verifySuffix, componentVerify = "-verify", "verify"
	// volumeVerify is the directory that a backup is restored into, at verifyDir.
	volumeVerify, verifyDir = "verify", "/verify"
	// verifyGrace is how long Litestream has to end, in seconds. It has nothing to save.
	verifyGrace = 5
	// verifyKept is how long a Job that ended stays where no operator deletes it, in seconds.
	verifyKept = 600
)

// defaultVerifyLimit is the size of that directory where the data volume has no size.
var defaultVerifyLimit = resource.MustParse("10Gi")

// VerifyName is the name of the Job that verifies a backup.
func VerifyName(headscale *v1beta1.Headscale) string { return headscale.Name + verifySuffix }

// VerifyLabels are the labels by which the pods of a verification are found. No Service and no
// StatefulSet selects them.
func VerifyLabels(headscale *v1beta1.Headscale) map[string]string {
	return map[string]string{
		labelName:              nameHeadscale + verifySuffix,
		v1beta1.LabelManagedBy: v1beta1.ManagedBy,
		v1beta1.LabelComponent: componentVerify,
		LabelHeadscale:         headscale.Name,
	}
}

// HeadscaleOfVerification is the name of the Headscale whose backup is verified by an object with
// these labels, or "".
func HeadscaleOfVerification(labels map[string]string) string {
	if labels[v1beta1.LabelComponent] != componentVerify {
		return ""
	}
	return labels[LabelHeadscale]
}

// Verification is what the verification of a backup depends on besides the objects of a Headscale.
type Verification struct {
	// Incarnation is the one that is restored.
	Incarnation string
	// Node is where the pod of the Headscale runs, or "".
	Node string
	// OperatorsImage is that of the API Key Manager.
	OperatorsImage string
	// KeyPrefix is that of an API key which the database must have, or "".
	KeyPrefix string
}

// NewVerification returns the Job that restores the newest state of a backup into an empty
// directory and checks it, best on a node: with the image that is there, and a claim that can be
// used on one node only. Then the operator's image of the API Key Manager counts its rows. Nothing of
// the Headscale is in its pod but Litestream's config and credentials.
func NewVerification(headscale *v1beta1.Headscale, objects *Objects, v Verification) (*batchv1ac.JobApplyConfiguration, error) {
	pod := corev1ac.PodTemplateSpec()
	if err := convert("pod", objects.StatefulSet.Spec.Template, pod); err != nil {
		return nil, err
	}
	spec := pod.Spec
	containers := spec.InitContainers
	at := slices.IndexFunc(containers, func(c corev1ac.ContainerApplyConfiguration) bool { return *c.Name == ContainerBackup })
	gate := slices.IndexFunc(containers, func(c corev1ac.ContainerApplyConfiguration) bool { return *c.Name == ContainerRestore })
	if at < 0 || gate < 0 {
		return nil, fmt.Errorf("the pod has no container %s", ContainerBackup)
	}
	database := containers[gate].Args[len(containers[gate].Args)-1]
	restore := verifyContainer(containers[at], database)
	spec.Containers, spec.InitContainers = []corev1ac.ContainerApplyConfiguration{restore}, nil
	spec.Volumes = verifyVolumes(headscale, spec.Volumes, restore.VolumeMounts)
	if v.OperatorsImage != "" && !managerIsPinned(headscale, v.OperatorsImage) {
		spec.Containers, spec.InitContainers = []corev1ac.ContainerApplyConfiguration{*countContainer(headscale, database, &v)}, spec.Containers
	}
	spec.WithRestartPolicy(corev1.RestartPolicyNever).WithTerminationGracePeriodSeconds(verifyGrace).WithAutomountServiceAccountToken(false).
		WithReadinessGates(corev1ac.PodReadinessGate().WithConditionType(preflightGate))
	delete(pod.Labels, labelInstance)
	delete(pod.Annotations, annotationDefaultContainer)
	pod.WithLabels(VerifyLabels(headscale))
	preferNode(spec, v.Node)
	return batchv1ac.Job(VerifyName(headscale), headscale.Namespace).
		WithLabels(labels(headscale, componentVerify)).
		WithAnnotations(map[string]string{AnnotationVerifyIncarnation: v.Incarnation}).
		WithOwnerReferences(owner(headscale)).
		WithSpec(batchv1ac.JobSpec().
			WithBackoffLimit(0).
			WithActiveDeadlineSeconds(VerifyDeadline).
			WithTTLSecondsAfterFinished(verifyKept).
			WithTemplate(pod)), nil
}

// verifyContainer makes of the container that replicates one that restores, into a directory of
// its own.
func verifyContainer(container corev1ac.ContainerApplyConfiguration, database string) corev1ac.ContainerApplyConfiguration {
	container.RestartPolicy, container.LivenessProbe, container.Ports = nil, nil, nil
	container.Args = []string{
		"restore", "-config=" + backupDir + "/" + backupConfig, "-integrity-check=full", "-o=" + path.Join(verifyDir, path.Base(database)), database,
	}
	container.VolumeMounts = slices.DeleteFunc(container.VolumeMounts, func(m corev1ac.VolumeMountApplyConfiguration) bool { return *m.Name == volumeData })
	for i := range container.VolumeMounts {
		if *container.VolumeMounts[i].Name != volumeTmp {
			container.VolumeMounts[i].WithReadOnly(true)
		}
	}
	container.WithName(ContainerRestore).WithVolumeMounts(mount(volumeVerify, verifyDir))
	return container
}

// countContainer counts the rows of what was restored, which it says in its last words.
func countContainer(headscale *v1beta1.Headscale, database string, v *Verification) *corev1ac.ContainerApplyConfiguration {
	container := corev1ac.Container().
		WithName(ContainerCount).
		WithImage(v.OperatorsImage).
		WithImagePullPolicy(corev1.PullIfNotPresent).
		WithArgs("count-rows", "--database="+path.Join(verifyDir, path.Base(database)), "--report="+corev1.TerminationMessagePathDefault).
		WithSecurityContext(containerSecurity()).
		WithResources(resourcesOf(headscale.Spec.Pod.ManagerResources, defaultManagerResources())).
		WithTerminationMessagePolicy(corev1.TerminationMessageFallbackToLogsOnError).
		WithVolumeMounts(mount(volumeVerify, verifyDir).WithReadOnly(true))
	if v.KeyPrefix != "" {
		container.WithArgs("--api-key-prefix=" + v.KeyPrefix)
	}
	return container
}

// verifyVolumes are the volumes that are mounted, and the directory to restore into, which has room
// for as much as the data volume.
func verifyVolumes(headscale *v1beta1.Headscale, volumes []corev1ac.VolumeApplyConfiguration, mounts []corev1ac.VolumeMountApplyConfiguration) []corev1ac.VolumeApplyConfiguration {
	limit := defaultVerifyLimit
	if size := headscale.Spec.PersistentVolumeClaim.Size; !size.IsZero() {
		limit = size
	}
	kept := []corev1ac.VolumeApplyConfiguration{*emptyDir(volumeVerify, limit)}
	for i := range volumes {
		if slices.ContainsFunc(mounts, func(m corev1ac.VolumeMountApplyConfiguration) bool { return *m.Name == *volumes[i].Name }) {
			kept = append(kept, volumes[i])
		}
	}
	return kept
}
