package resources

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// ContainerManager is the name of the container that runs the API Key Manager.
const ContainerManager = "apikey-manager"

// tokenLifetime is how long the sidecar's token is valid, in seconds. The kubelet
// renews it in time.
const tokenLifetime = 3600

// The liveness probe asks once in probePeriod seconds and has the sidecar started again
// after probeFailures failures in a row: three minutes, on top of those after which the
// sidecar itself says that it is stuck. A restart must be rare.
const probePeriod, probeTimeout, probeFailures = 30, 5, 6

// addSidecar puts the API Key Manager into a pod, with what it alone needs. It has
// no readiness probe: trouble with a key must not take Headscale out of its Service.
// (Nor does a sidecar that cannot even start: the Services publish the pod anyway. But with a
// backup a new pod needs the operator's image of it, for the container of ContainerIdentity.)
func addSidecar(pod *corev1ac.PodTemplateSpecApplyConfiguration, headscale *v1beta1.Headscale, l *layout, operatorsImage string) error {
	image := cmp.Or(headscale.Spec.APIKey.ManagerImage, operatorsImage)
	if image == "" {
		return invalid("api_key.manager_image", "must be set, because the operator has no image of its own for the API Key Manager")
	}
	args, err := managerArgs(headscale, l)
	if err != nil {
		return err
	}
	pod.Spec.WithVolumes(tokenVolume()).WithContainers(corev1ac.Container().
		WithName(ContainerManager).
		WithImage(image).
		// As the operator's own image: a moving tag such as latest must not keep a pod
		// from starting where the image was loaded and there is no registry.
		WithImagePullPolicy(corev1.PullIfNotPresent).
		WithArgs(args...).
		WithEnv(corev1ac.EnvVar().WithName("POD_NAMESPACE").WithValueFrom(
			corev1ac.EnvVarSource().WithFieldRef(podNamespace()))).
		WithSecurityContext(containerSecurity()).
		WithPorts(
			corev1ac.ContainerPort().WithName(portKeyMetrics).WithContainerPort(keyMetricsPort).WithProtocol(corev1.ProtocolTCP),
			corev1ac.ContainerPort().WithName(portKeyAdmin).WithContainerPort(AdminPort).WithProtocol(corev1.ProtocolTCP)).
		WithLivenessProbe(corev1ac.Probe().
			WithHTTPGet(corev1ac.HTTPGetAction().
				WithPath("/healthz").WithPort(intstr.FromString(portKeyMetrics)).WithScheme(corev1.URISchemeHTTP)).
			WithPeriodSeconds(probePeriod).WithTimeoutSeconds(probeTimeout).WithFailureThreshold(probeFailures)).
		WithResources(resourcesOf(headscale.Spec.Pod.ManagerResources, defaultManagerResources())).
		WithTerminationMessagePolicy(corev1.TerminationMessageFallbackToLogsOnError).
		WithVolumeMounts(
			// A socket can be used where it cannot be replaced.
			mount(volumeSocket, l.socketDir()).WithReadOnly(true),
			mount(volumeToken, tokenDir).WithReadOnly(true),
		))
	return nil
}

// defaultManagerResources are what the sidecar gets where the user writes nothing.
func defaultManagerResources() *corev1ac.ResourceRequirementsApplyConfiguration {
	return corev1ac.ResourceRequirements().
		WithRequests(corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("5m"),
			corev1.ResourceMemory: resource.MustParse("24Mi"),
		}).
		WithLimits(corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")})
}

// managerArgs is the sidecar's command line.
func managerArgs(headscale *v1beta1.Headscale, l *layout) ([]string, error) {
	key := &headscale.Spec.APIKey
	lifetime, err := key.Lifetime()
	if err != nil {
		return nil, invalid("api_key", "cannot be used: %v", err)
	}
	args := []string{
		"--socket-path=" + l.socket,
		flagSecretName + key.EffectiveSecretName(),
		"--owner=" + headscale.Name + "/" + string(headscale.UID),
		"--expiration=" + durationText(key.Expiration, lifetime.Expiration),
		"--rotation-buffer=" + durationText(key.RotationBuffer, lifetime.RotationBuffer),
	}
	args = append(args, fmt.Sprintf("--metrics-bind-address=:%d", keyMetricsPort), fmt.Sprintf("--admin-bind-address=:%d", AdminPort), "--headscale-version="+headscale.Spec.Version)
	if lifetime.RevocationDelay > 0 {
		args = append(args, "--revocation-delay="+string(key.RevocationDelay))
	}
	return args, nil
}

// flagSecretName begins the sidecar's argument that names its Secret.
const flagSecretName = "--secret-name="

// SecretNameOf is the name of the Secret in the sidecar's command line, or "".
func SecretNameOf(args []string) string {
	for _, arg := range args {
		if name, ok := strings.CutPrefix(arg, flagSecretName); ok {
			return name
		}
	}
	return ""
}

// tokenVolume is what a client in a pod finds by default, with a token that is
// short-lived and for the sidecar alone.
func tokenVolume() *corev1ac.VolumeApplyConfiguration {
	return corev1ac.Volume().WithName(volumeToken).WithProjected(corev1ac.ProjectedVolumeSource().WithSources(
		corev1ac.VolumeProjection().WithServiceAccountToken(corev1ac.ServiceAccountTokenProjection().
			WithPath("token").WithExpirationSeconds(tokenLifetime)),
		corev1ac.VolumeProjection().WithConfigMap(corev1ac.ConfigMapProjection().
			WithName("kube-root-ca.crt").
			WithItems(corev1ac.KeyToPath().WithKey("ca.crt").WithPath("ca.crt"))),
		corev1ac.VolumeProjection().WithDownwardAPI(corev1ac.DownwardAPIProjection().
			WithItems(corev1ac.DownwardAPIVolumeFile().WithPath("namespace").WithFieldRef(podNamespace()))),
	))
}

// podNamespace refers to the namespace of the pod. The version is the default,
// written out because the API server adds it to a field that the operator owns.
func podNamespace() *corev1ac.ObjectFieldSelectorApplyConfiguration {
	return corev1ac.ObjectFieldSelector().WithAPIVersion("v1").WithFieldPath("metadata.namespace")
}
