package apikey

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// reasonOf names the kind of a failure.
func reasonOf(err error) rotation.Reason {
	var throttled *rotation.ThrottledError
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &throttled):
		return rotation.ReasonThrottled
	case errors.Is(err, rotation.ErrUnsettled):
		return rotation.ReasonUnsettled
	case errors.Is(err, headscale.ErrUnavailable) && errors.Is(err, fs.ErrPermission):
		return ReasonSocketForbidden
	case errors.Is(err, headscale.ErrUnavailable):
		return ReasonHeadscaleUnavailable
	case errors.As(err, &status):
		return kubernetesReason(err)
	case errors.Is(err, errKubernetes):
		return ReasonKubernetesUnavailable
	default:
		return ReasonHeadscaleFailed
	}
}

// kubernetesReason classifies the answers of the API server. RBAC, a quota and an admission
// plugin all refuse with the reason Forbidden, and nothing but their words differs; these are
// tried on a real API server in test/reliability.
func kubernetesReason(err error) rotation.Reason {
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return ReasonNamespaceTerminating
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		return ReasonQuotaExceeded
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), `User "`), apierrors.IsUnauthorized(err):
		return ReasonForbidden
	case apierrors.IsInternalError(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err),
		apierrors.IsTooManyRequests(err), apierrors.IsServiceUnavailable(err):
		return ReasonKubernetesUnavailable
	default:
		return ReasonKubernetesRefused
	}
}

// minSecret is the length from which on a text is taken out of messages. What is
// shorter is no credential, and would tear holes into words.
const minSecret = 8

// without is the text of an error from which some texts were taken out, as they are
// and as the API writes them, and everything else that looks like an API key. An
// admission webhook, for one, may quote what it refuses.
func without(err error, secrets []string) string {
	text := err.Error()
	for _, secret := range secrets {
		if len(secret) >= minSecret {
			mask := headscale.NewKey(secret).String()
			text = strings.ReplaceAll(text, secret, mask)
			text = strings.ReplaceAll(text, base64.StdEncoding.EncodeToString([]byte(secret)), mask)
		}
	}
	return headscale.Redact(text)
}
