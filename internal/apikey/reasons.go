package apikey

import "infrado.cloud/headscale-operator/internal/rotation"

// Reasons for a new key that are peculiar to API keys; package rotation has the others.
const (
	// ReasonValueMalformed: the Secret's value is not an API key.
	ReasonValueMalformed rotation.Reason = "ValueMalformed"
	// ReasonKeyNotAccepted: this version of Headscale refuses keys of that format.
	ReasonKeyNotAccepted rotation.Reason = "KeyNotAccepted"
)

// Reasons for having to wait for others.
const (
	// ReasonHeadscaleUnavailable: Headscale does not answer on its socket.
	ReasonHeadscaleUnavailable rotation.Reason = "HeadscaleUnavailable"
	// ReasonSocketForbidden: this process may not open Headscale's socket.
	ReasonSocketForbidden rotation.Reason = "SocketForbidden"
	// ReasonHeadscaleFailed: Headscale answered with an error.
	ReasonHeadscaleFailed rotation.Reason = "HeadscaleFailed"
	// ReasonForbidden: this process's ServiceAccount may not do what it must.
	ReasonForbidden rotation.Reason = "SecretForbidden"
	// ReasonQuotaExceeded: the namespace's quota admits no further Secret.
	ReasonQuotaExceeded rotation.Reason = "QuotaExceeded"
	// ReasonNamespaceTerminating: the namespace is being deleted.
	ReasonNamespaceTerminating rotation.Reason = "NamespaceTerminating"
	// ReasonKubernetesRefused: the API server, or an admission webhook, said no.
	ReasonKubernetesRefused rotation.Reason = "KubernetesRefused"
	// ReasonKubernetesUnavailable: the API server does not answer.
	ReasonKubernetesUnavailable rotation.Reason = "KubernetesUnavailable"
)

// What a metric's label "reason" can be.
var (
	// rotationReasons are those with which a key is stored.
	rotationReasons = []rotation.Reason{
		rotation.ReasonSecretMissing, rotation.ReasonKeyMissing, ReasonValueMalformed, rotation.ReasonValueChanged, rotation.ReasonKeyUnknown,
		ReasonKeyNotAccepted, rotation.ReasonKeyExpired, rotation.ReasonLifetimeShortened, rotation.ReasonRequested, rotation.ReasonDue, rotation.ReasonUnsaved,
	}
	// blockingReasons are those for which a person must resolve a problem.
	blockingReasons = []rotation.Reason{rotation.ReasonNotOurs, rotation.ReasonImmutable}
	// failureReasons are those for which an attempt fails or is deferred.
	failureReasons = append([]rotation.Reason{
		ReasonHeadscaleUnavailable, ReasonSocketForbidden, ReasonHeadscaleFailed, ReasonForbidden, ReasonQuotaExceeded,
		ReasonNamespaceTerminating, ReasonKubernetesRefused, ReasonKubernetesUnavailable, rotation.ReasonThrottled, rotation.ReasonUnsettled,
	}, blockingReasons...)
)
