package v1beta1

import (
	corev1 "k8s.io/api/core/v1"
)

// PodSpec is what a user adds to Headscale's pod. Sections that are Kubernetes' own
// keep Kubernetes' names inside.
type PodSpec struct {
	// CPU and memory of Headscale. Left out: 50m and 64Mi requested, no limit.
	// +optional
	Resources *PodResources `json:"resources,omitempty"`

	// CPU and memory of the API Key Manager. Left out: 5m and 24Mi requested, at most
	// 64Mi of memory.
	// +optional
	ManagerResources *PodResources `json:"manager_resources,omitempty"`

	// CPU and memory of Litestream. Left out: 10m and 32Mi requested, at most 256Mi of memory.
	// +optional
	BackupResources *PodResources `json:"backup_resources,omitempty"`

	// On which nodes, and near which pods, the pod may run.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// Taints of nodes that the pod tolerates.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// How pods are spread over nodes and zones.
	// +optional
	// +listType=map
	// +listMapKey=topologyKey
	// +listMapKey=whenUnsatisfiable
	// +kubebuilder:validation:MaxItems=16
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topology_spread_constraints,omitempty"`

	// Labels that a node must have.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	NodeSelector map[string]string `json:"node_selector,omitempty"`

	// PriorityClass of the pod.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priority_class_name,omitempty"`

	// Further annotations of the pod.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	Annotations map[string]string `json:"annotations,omitempty"`

	// Further labels of the pod. The labels by which the operator finds its pods
	// cannot be set.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	Labels map[string]string `json:"labels,omitempty"`

	// User and groups of both containers. Left out: 65532. Empty ({}): what is left out here
	// is left to the platform, such as OpenShift, or to the images.
	// +optional
	SecurityContext *PodSecurityContext `json:"security_context,omitempty"`

	// Further environment variables of Headscale.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Env []corev1.EnvVar `json:"env,omitempty"`

	// Further volumes of the pod, of the kinds that the restricted Pod Security
	// Standard permits.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Volumes []PodVolume `json:"volumes,omitempty"`

	// Volume mounts of Headscale's container.
	// +optional
	// +listType=map
	// +listMapKey=mountPath
	// +kubebuilder:validation:MaxItems=32
	VolumeMounts []corev1.VolumeMount `json:"volume_mounts,omitempty"`
}

// PodResources are the CPU and the memory of a container.
type PodResources struct {
	// Resource limits.
	// +optional
	Limits corev1.ResourceList `json:"limits,omitempty"`
	// Resource requests.
	// +optional
	Requests corev1.ResourceList `json:"requests,omitempty"`
}

// PodSecurityContext says as which user both containers run, and which group owns the pod's
// volumes. The rest of a pod's security context is what the restricted Pod Security Standard
// asks for, and cannot be changed.
type PodSecurityContext struct {
	// User id of both containers; not 0.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483647
	RunAsUser *int64 `json:"runAsUser,omitempty"`
	// Group id of both containers.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	RunAsGroup *int64 `json:"runAsGroup,omitempty"`
	// Group that owns the volumes: the data, and the directory of the socket.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	FSGroup *int64 `json:"fsGroup,omitempty"`
}

// PodVolume is a volume of a kind that the restricted Pod Security Standard permits.
//
// +kubebuilder:validation:XValidation:rule="[has(self.configMap), has(self.csi), has(self.downwardAPI), has(self.emptyDir), has(self.persistentVolumeClaim), has(self.projected), has(self.secret)].filter(given, given).size() == 1",message="a volume must have exactly one of configMap, csi, downwardAPI, emptyDir, persistentVolumeClaim, projected and secret"
type PodVolume struct {
	// Name of the volume.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="the name of a volume must be lower-case letters, digits and '-', beginning and ending with a letter or a digit"
	Name string `json:"name"`
	// Files from a ConfigMap.
	// +optional
	ConfigMap *corev1.ConfigMapVolumeSource `json:"configMap,omitempty"`
	// A volume of a CSI driver that lives as long as the pod.
	// +optional
	CSI *corev1.CSIVolumeSource `json:"csi,omitempty"`
	// A downward API volume.
	// +optional
	DownwardAPI *corev1.DownwardAPIVolumeSource `json:"downwardAPI,omitempty"`
	// An empty directory that lives as long as the pod.
	// +optional
	EmptyDir *corev1.EmptyDirVolumeSource `json:"emptyDir,omitempty"`
	// A claim that exists.
	// +optional
	PersistentVolumeClaim *corev1.PersistentVolumeClaimVolumeSource `json:"persistentVolumeClaim,omitempty"`
	// Files from several sources. None may give Headscale the rights of the pod's
	// ServiceAccount, which are the API Key Manager's.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.sources) || self.sources.all(source, !has(source.serviceAccountToken) || (has(source.serviceAccountToken.audience) && source.serviceAccountToken.audience != '' && !source.serviceAccountToken.audience.contains('kubernetes.default')))",message="a serviceAccountToken must have an audience of its own, such as vault: one for the API server would give Headscale the rights of the API Key Manager"
	// +kubebuilder:validation:XValidation:rule="!has(self.sources) || self.sources.all(source, !has(source.podCertificate) || !source.podCertificate.signerName.startsWith('kubernetes.io/'))",message="a podCertificate must not be of a signer of Kubernetes' own: it would give Headscale the rights of the API Key Manager"
	Projected *corev1.ProjectedVolumeSource `json:"projected,omitempty"`
	// Files from a Secret.
	// +optional
	Secret *corev1.SecretVolumeSource `json:"secret,omitempty"`
}
