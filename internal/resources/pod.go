package resources

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// ContainerHeadscale is the name of the container that runs Headscale.
const ContainerHeadscale = "headscale"

// Names of the pod's volumes.
const (
	volumeConfig = "config"
	volumeData   = "data"
	volumeFiles  = "files"
	volumeSocket = "socket"
	volumeTmp    = "tmp"
	volumeToken  = "token"
)

// userID is the user and the group of both containers where the user writes nothing: the
// "nonroot" of distroless images. Both containers have the same, so that the sidecar can open
// Headscale's socket.
const userID = int64(65532)

// defaultVolumeSize is the CRD's default of persistent_volume_claim.size.
var defaultVolumeSize = resource.MustParse("1Gi")

var (
	// socketLimit is the size of the socket's volume. A socket takes no room; the rest is for
	// small files that a config may name beside it, such as keys.
	socketLimit = resource.MustParse("16Mi")
	// tmpLimit is the size of /tmp, as much as the data volume has by default. SQLite puts a
	// copy of the whole database there whenever Headscale ends (VACUUM), and what it cannot
	// sort in memory. The database of thousands of devices takes some tens of MiB.
	tmpLimit = resource.MustParse("1Gi")
	// scratchLimit is the size of an emptyDir in spec.pod.volumes for which none is written.
	scratchLimit = resource.MustParse("1Gi")
)

// podTemplate is Headscale's pod, without a sidecar.
func podTemplate(headscale *v1beta1.Headscale, l *layout, config string) *corev1ac.PodTemplateSpecApplyConfiguration {
	spec := corev1ac.PodSpec().
		WithServiceAccountName(headscale.Name).
		WithAutomountServiceAccountToken(false).
		WithEnableServiceLinks(false).
		WithSecurityContext(podSecurity(headscale, l)).
		WithContainers(headscaleContainer(headscale, l)).
		WithVolumes(
			corev1ac.Volume().WithName(volumeConfig).WithConfigMap(corev1ac.ConfigMapVolumeSource().
				WithName(headscale.Name).
				WithItems(corev1ac.KeyToPath().WithKey(ConfigFile).WithPath(ConfigFile))),
			emptyDir(volumeSocket, socketLimit),
			emptyDir(volumeTmp, tmpLimit),
		)
	for _, secret := range headscale.Spec.ImagePullSecrets {
		spec.WithImagePullSecrets(corev1ac.LocalObjectReference().WithName(secret.Name))
	}
	return corev1ac.PodTemplateSpec().
		WithLabels(labels(headscale, componentServer)).
		WithAnnotations(map[string]string{
			AnnotationConfigHash:       configHash(config),
			annotationDefaultContainer: ContainerHeadscale,
		}).
		WithSpec(spec)
}

// headscaleContainer runs `headscale serve`. The program is the image's entrypoint.
func headscaleContainer(headscale *v1beta1.Headscale, l *layout) *corev1ac.ContainerApplyConfiguration {
	container := corev1ac.Container().
		WithName(ContainerHeadscale).
		WithImage(Image(headscale)).
		WithArgs("serve", "--config="+configDir+"/"+ConfigFile).
		WithSecurityContext(containerSecurity()).
		WithResources(resourcesOf(headscale.Spec.Pod.Resources, defaultResources())).
		// What a crashing Headscale said last is then in the pod's status.
		WithTerminationMessagePolicy(corev1.TerminationMessageFallbackToLogsOnError).
		WithVolumeMounts(
			mount(volumeConfig, configDir).WithReadOnly(true),
			mount(volumeData, l.dataDir),
			mount(volumeSocket, l.socketDir()),
			mount(volumeTmp, tmpDir),
		).
		// The database may be migrated at a start, which must not be interrupted.
		WithStartupProbe(healthProbe(l).WithPeriodSeconds(2).WithTimeoutSeconds(5).WithFailureThreshold(300)).
		WithReadinessProbe(healthProbe(l).WithPeriodSeconds(5).WithTimeoutSeconds(5).WithFailureThreshold(3)).
		// Health includes the database. A restart does not mend a database that is away,
		// so what is asked here is only whether Headscale still accepts connections.
		WithLivenessProbe(tcpProbe().WithPeriodSeconds(20).WithTimeoutSeconds(5).WithFailureThreshold(6))
	for _, p := range l.ports {
		container.WithPorts(corev1ac.ContainerPort().
			WithName(p.name).WithContainerPort(p.number).WithProtocol(protocolOf(p.name)))
	}
	return container
}

// defaultResources are what Headscale gets where the user writes nothing.
func defaultResources() *corev1ac.ResourceRequirementsApplyConfiguration {
	return corev1ac.ResourceRequirements().WithRequests(corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("50m"),
		corev1.ResourceMemory: resource.MustParse("64Mi"),
	})
}

// imageOf is Headscale's image, with the default filled in.
func imageOf(headscale *v1beta1.Headscale) string {
	if headscale.Spec.Image == "" {
		return v1beta1.DefaultImage
	}
	return headscale.Spec.Image
}

// Image is the image of Headscale with its tag or digest.
func Image(headscale *v1beta1.Headscale) string {
	return imageReference(imageOf(headscale), headscale.Spec.Version)
}

// healthProbe asks Headscale how it is, in the way that it serves. Where it answers
// to its own host name only, which a probe cannot name, a connection must do.
func healthProbe(l *layout) *corev1ac.ProbeApplyConfiguration {
	if l.acme {
		return tcpProbe()
	}
	scheme := corev1.URISchemeHTTP
	if l.tls {
		scheme = corev1.URISchemeHTTPS
	}
	return corev1ac.Probe().WithHTTPGet(corev1ac.HTTPGetAction().
		WithPath("/health").WithPort(intstr.FromString(portHTTP)).WithScheme(scheme))
}

// tcpProbe tries to connect to Headscale.
func tcpProbe() *corev1ac.ProbeApplyConfiguration {
	return corev1ac.Probe().WithTCPSocket(corev1ac.TCPSocketAction().WithPort(intstr.FromString(portHTTP)))
}

// podSecurity is what the restricted Pod Security Standard asks of a pod.
func podSecurity(headscale *v1beta1.Headscale, l *layout) *corev1ac.PodSecurityContextApplyConfiguration {
	ids := headscale.Spec.Pod.SecurityContext
	if ids == nil {
		id := userID
		ids = &v1beta1.PodSecurityContext{RunAsUser: &id, RunAsGroup: &id, FSGroup: &id}
	}
	security := corev1ac.PodSecurityContext().
		WithRunAsNonRoot(true).
		WithFSGroupChangePolicy(corev1.FSGroupChangeOnRootMismatch).
		WithSeccompProfile(corev1ac.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))
	security.RunAsUser, security.RunAsGroup, security.FSGroup = ids.RunAsUser, ids.RunAsGroup, ids.FSGroup
	if l.privileged() {
		// A sysctl of the pod's own network that the standard allows.
		security.WithSysctls(corev1ac.Sysctl().WithName("net.ipv4.ip_unprivileged_port_start").WithValue("0"))
	}
	return security
}

// containerSecurity is what the restricted Pod Security Standard asks of a
// container, with a root file system that cannot be written.
func containerSecurity() *corev1ac.SecurityContextApplyConfiguration {
	return corev1ac.SecurityContext().
		WithAllowPrivilegeEscalation(false).
		WithReadOnlyRootFilesystem(true).
		WithCapabilities(corev1ac.Capabilities().WithDrop("ALL"))
}

// emptyDir is a volume that lives as long as the pod. The kubelet evicts a pod that puts more
// into it than the limit.
func emptyDir(name string, limit resource.Quantity) *corev1ac.VolumeApplyConfiguration {
	return corev1ac.Volume().WithName(name).WithEmptyDir(corev1ac.EmptyDirVolumeSource().WithSizeLimit(limit))
}

// mount mounts a volume.
func mount(volume, path string) *corev1ac.VolumeMountApplyConfiguration {
	return corev1ac.VolumeMount().WithName(volume).WithMountPath(path)
}
