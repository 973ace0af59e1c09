package plugin

import (
	"errors"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// placeOfNoConfig is where the libraries of kubectl look for an API server when no
// kubeconfig names one.
const placeOfNoConfig = "localhost:8080"

// explain is one sentence about an error, with what to do where that is known.
func explain(err error) string {
	var unreachable *url.Error
	switch {
	case kindMissing(err):
		return "the cluster does not know the kind Headscale (" + v1beta1.GroupVersion.String() + "): install the operator first"
	case apierrors.IsUnauthorized(err):
		return "the API server does not accept your credentials: log in again, or choose another --context"
	case apierrors.IsForbidden(err):
		return "you are not allowed to do this: " + oneLine(apiMessage(err))
	case clientcmd.IsEmptyConfig(err), errors.As(err, &unreachable) && strings.Contains(unreachable.URL, "//"+placeOfNoConfig+"/"):
		return "no kubeconfig says where the cluster is: set KUBECONFIG or --kubeconfig, or make ~/.kube/config"
	case errors.As(err, &unreachable):
		return "the API server does not answer: " + oneLine(unreachable.Err.Error())
	case errors.As(err, new(apierrors.APIStatus)):
		return oneLine(err.Error())
	default:
		return err.Error()
	}
}

// kindMissing reports whether the CustomResourceDefinition of Headscales is missing: the API server
// answers an unknown path with another message than an unknown name.
func kindMissing(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	if details == nil {
		return true
	}
	for _, cause := range details.Causes {
		if cause.Type == metav1.CauseTypeUnexpectedServerResponse {
			return true
		}
	}
	return false
}

// apiMessage is the API server's own message, without the errors that wrap it.
func apiMessage(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return status.Status().Message
	}
	return err.Error()
}
