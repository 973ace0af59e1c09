package apikey

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// callTimeout bounds each call to the API server but the watch, which has no end.
const callTimeout = 10 * time.Second

const secretsResource = "secrets"

// errKubernetes is wrapped by the errors that say that the API server did not answer.
var errKubernetes = errors.New("the Kubernetes API server did not answer")

// secretClient is Secrets by a REST client: it needs no more than get, watch,
// create and update, the first two and the last by name.
type secretClient struct {
	rest            rest.Interface
	parameters      runtime.ParameterCodec
	namespace, name string
}

// NewSecrets returns access to one Secret through the API server that the
// configuration names.
func NewSecrets(config *rest.Config, namespace, name string) (Secrets, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering the types of Kubernetes: %w", err)
	}
	config = rest.CopyConfig(config)
	config.APIPath = "/api"
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for the Kubernetes API: %w", err)
	}
	return &secretClient{rest: client, parameters: runtime.NewParameterCodec(scheme), namespace: namespace, name: name}, nil
}

func (c *secretClient) Get(ctx context.Context) (*corev1.Secret, error) {
	return c.do(ctx, c.rest.Get().Name(c.name))
}

func (c *secretClient) Create(ctx context.Context, secret *corev1.Secret) (*corev1.Secret, error) {
	secret = secret.DeepCopy()
	secret.Namespace, secret.Name = c.namespace, c.name
	return c.do(ctx, c.rest.Post().Body(secret))
}

func (c *secretClient) Update(ctx context.Context, secret *corev1.Secret) (*corev1.Secret, error) {
	return c.do(ctx, c.rest.Put().Name(c.name).Body(secret))
}

func (c *secretClient) do(ctx context.Context, request *rest.Request) (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	secret := &corev1.Secret{}
	err := request.Namespace(c.namespace).Resource(secretsResource).MaxRetries(0).Do(ctx).Into(secret)
	if err != nil {
		return nil, unanswered(err)
	}
	return secret, nil
}

func (c *secretClient) Watch(ctx context.Context, resourceVersion string) (watch.Interface, error) {
	options := &metav1.ListOptions{
		Watch:               true,
		AllowWatchBookmarks: true,
		ResourceVersion:     resourceVersion,
		FieldSelector:       fields.OneTermEqualSelector(metav1.ObjectNameField, c.name).String(),
	}
	watcher, err := c.rest.Get().Namespace(c.namespace).Resource(secretsResource).VersionedParams(options, c.parameters).Watch(ctx)
	if err != nil {
		return nil, unanswered(err)
	}
	return watcher, nil
}

// unanswered tells an error of the way to the API server from one of its answers.
// An answer that is no Status, as a proxy in between may give, counts as none.
func unanswered(err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Code != http.StatusBadGateway {
		return err
	}
	return fmt.Errorf("%w: %w", errKubernetes, err)
}
