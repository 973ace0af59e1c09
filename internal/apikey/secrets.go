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
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

const (
	// callTimeout bounds each call to the API server, and the beginning of a watch.
	callTimeout = 10 * time.Second
	// watchTimeout is when the API server is asked to end a watch, and watchGrace
	// how much later it is ended here if the API server did not.
	watchTimeout = 30 * time.Minute
	watchGrace   = time.Minute
)

const secretsResource = "secrets"

// errKubernetes is wrapped by the errors that say that the API server did not answer.
var errKubernetes = errors.New("the Kubernetes API server did not answer")

// SecretClient is Secrets, and IdentitySecret, by a REST client: for the first it needs no more
// than get, watch, create and update, the first two and the last by name, and for the other get,
// create and patch.
type SecretClient struct {
	rest            rest.Interface
	parameters      runtime.ParameterCodec
	namespace, name string
}

// NewSecrets returns access to one Secret through the API server that the
// configuration names.
func NewSecrets(config *rest.Config, namespace, name string) (*SecretClient, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering the types of Kubernetes: %w", err)
	}
	config = rest.CopyConfig(config)
	config.APIPath = "/api"
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType = runtime.ContentTypeProtobuf
	// A warning may quote what was written, and would come with every write.
	config.WarningHandler = rest.NoWarnings{}
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for the Kubernetes API: %w", err)
	}
	return &SecretClient{rest: client, parameters: runtime.NewParameterCodec(scheme), namespace: namespace, name: name}, nil
}

// Named is access to another Secret of the namespace, over the same connections.
func (c *SecretClient) Named(name string) *SecretClient {
	other := *c
	other.name = name
	return &other
}

// Get returns the Secret.
func (c *SecretClient) Get(ctx context.Context) (*corev1.Secret, error) {
	return c.do(ctx, c.rest.Get().Name(c.name))
}

// Create makes the Secret.
func (c *SecretClient) Create(ctx context.Context, secret *corev1.Secret) (*corev1.Secret, error) {
	secret = secret.DeepCopy()
	secret.Namespace, secret.Name = c.namespace, c.name
	return c.do(ctx, c.rest.Post().Body(secret))
}

// Update writes the Secret if it still has the resource version that it was read with.
func (c *SecretClient) Update(ctx context.Context, secret *corev1.Secret) (*corev1.Secret, error) {
	return c.do(ctx, c.rest.Put().Name(c.name).Body(secret))
}

// Patch changes the Secret by a merge patch.
func (c *SecretClient) Patch(ctx context.Context, patch []byte) (*corev1.Secret, error) {
	return c.do(ctx, c.rest.Patch(types.MergePatchType).Name(c.name).Body(patch))
}

func (c *SecretClient) do(ctx context.Context, request *rest.Request) (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	secret := &corev1.Secret{}
	err := request.Namespace(c.namespace).Resource(secretsResource).MaxRetries(0).Do(ctx).Into(secret)
	if err != nil {
		return nil, unanswered(err)
	}
	return secret, nil
}

// Watch reports changes of the Secret.
func (c *SecretClient) Watch(ctx context.Context, resourceVersion string) (watch.Interface, error) {
	seconds := int64(watchTimeout.Seconds())
	options := &metav1.ListOptions{
		Watch:               true,
		AllowWatchBookmarks: true,
		ResourceVersion:     resourceVersion,
		TimeoutSeconds:      &seconds,
		FieldSelector:       fields.OneTermEqualSelector(metav1.ObjectNameField, c.name).String(),
	}
	ctx, cancel := context.WithTimeout(ctx, watchTimeout+watchGrace)
	beginning := time.AfterFunc(callTimeout, cancel)
	watcher, err := c.rest.Get().Namespace(c.namespace).Resource(secretsResource).
		VersionedParams(options, c.parameters).MaxRetries(0).Watch(ctx)
	if err == nil && !beginning.Stop() {
		watcher.Stop()
		err = context.DeadlineExceeded
	}
	if err != nil {
		cancel()
		return nil, unanswered(err)
	}
	return &boundedWatch{Interface: watcher, cancel: cancel}, nil
}

// boundedWatch is a watch that frees its deadline when it is stopped.
type boundedWatch struct {
	watch.Interface
	cancel context.CancelFunc
}

func (w *boundedWatch) Stop() {
	w.Interface.Stop()
	w.cancel()
}

// unanswered wraps an error in errKubernetes unless it is an answer of the API server.
// An answer that is no Status, as a proxy in between may give, counts as none.
func unanswered(err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Code != http.StatusBadGateway {
		return err
	}
	return fmt.Errorf("%w: %w", errKubernetes, err)
}
