package resources

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// service is how clients in the cluster reach Headscale.
func service(headscale *v1beta1.Headscale, l *layout) *corev1ac.ServiceApplyConfiguration {
	made := serviceFor(headscale, headscale.Name, componentServer, l.exposed(portHTTP, portGRPC, portSTUN, portACME))
	if protocol := headscale.Spec.Service.AppProtocol; protocol != "" {
		// The port http is always there, and the first.
		made.Spec.Ports[0].WithAppProtocol(protocol)
	}
	return made
}

// metricsService is for what collects the metrics. It is nil where there are none
// to collect. It stands apart from the other Service so that exposing Headscale does
// not expose its debug pages.
func metricsService(headscale *v1beta1.Headscale, l *layout) *corev1ac.ServiceApplyConfiguration {
	ports := l.exposed(portMetrics)
	if headscale.Spec.APIKey.Managed() {
		ports = append(ports, port{portKeyMetrics, keyMetricsPort})
	}
	if headscale.Spec.Backup != nil {
		ports = append(ports, port{portBackup, backupPort})
	}
	if len(ports) == 0 {
		return nil
	}
	return serviceFor(headscale, metricsName(headscale), componentMetrics, ports)
}

func serviceFor(headscale *v1beta1.Headscale, name, component string, ports []port) *corev1ac.ServiceApplyConfiguration {
	// The pod is also not ready where only its sidecar is not, which must not cut clients
	// off. There is one pod, so leaving it out would send nobody to a better one.
	spec := corev1ac.ServiceSpec().WithSelector(selectorLabels(headscale)).WithPublishNotReadyAddresses(true)
	for _, p := range ports {
		spec.WithPorts(corev1ac.ServicePort().
			WithName(p.name).
			WithPort(p.number).
			WithTargetPort(intstr.FromString(p.name)).
			WithProtocol(protocolOf(p.name)))
	}
	return corev1ac.Service(name, headscale.Namespace).
		WithLabels(labels(headscale, component)).
		WithOwnerReferences(owner(headscale)).
		WithSpec(spec)
}

// protocolOf is the protocol of the port of that name.
func protocolOf(name string) corev1.Protocol {
	if name == portSTUN {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}
