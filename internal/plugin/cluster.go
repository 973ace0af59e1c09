package plugin

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/gentype"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	eventsv1client "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"

	// Ways to log in that a kubeconfig may name.
	_ "k8s.io/client-go/plugin/pkg/client/auth"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// fieldManager is the plugin's field manager when it writes.
const fieldManager = "kubectl-headscale"

// page is the page size of lists.
const page = 500

// cluster is what the plugin reads and writes, in the namespace that the command line
// or the kubeconfig names.
type cluster struct {
	namespace string
	rest      rest.Interface
	codec     runtime.ParameterCodec
	core      corev1client.CoreV1Interface
	recorded  eventsv1client.EventsV1Interface
	meta      metadata.Interface
}

// cluster connects to the API server that the flags and the kubeconfig name.
func (a *app) cluster() (*cluster, error) {
	namespace, _, err := a.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, err
	}
	config, err := a.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	return newCluster(config, namespace)
}

func newCluster(config *rest.Config, namespace string) (*cluster, error) {
	scheme := runtime.NewScheme()
	if err := v1beta1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering the Headscale resource: %w", err)
	}
	own := rest.CopyConfig(config)
	own.APIPath = "/apis"
	own.GroupVersion = &v1beta1.GroupVersion
	own.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c := &cluster{namespace: namespace, codec: runtime.NewParameterCodec(scheme)}
	var err error
	if c.rest, err = rest.RESTClientFor(own); err != nil {
		return nil, err
	}
	if c.core, err = corev1client.NewForConfig(config); err != nil {
		return nil, err
	}
	if c.recorded, err = eventsv1client.NewForConfig(config); err != nil {
		return nil, err
	}
	c.meta, err = metadata.NewForConfig(config)
	return c, err
}

// headscales are the Headscales of a namespace; of all with "".
func (c *cluster) headscales(namespace string) *gentype.ClientWithList[*v1beta1.Headscale, *v1beta1.HeadscaleList] {
	return gentype.NewClientWithList("headscales", c.rest, c.codec, namespace,
		func() *v1beta1.Headscale { return &v1beta1.Headscale{} },
		func() *v1beta1.HeadscaleList { return &v1beta1.HeadscaleList{} })
}

// listHeadscales reads all Headscales of a namespace, or of all with "".
func (c *cluster) listHeadscales(ctx context.Context, namespace string) ([]v1beta1.Headscale, error) {
	return listAll[v1beta1.Headscale](ctx, nil, func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return c.headscales(namespace).List(ctx, options)
	})
}

// listKind reads all objects of a kind of this group in a namespace, or of all with "".
func listKind[T any, P interface {
	*T
	runtime.Object
}](ctx context.Context, c *cluster, resource, namespace string, newList func() runtime.Object) ([]T, error) {
	return listAll[T, P](ctx, nil, func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		list := newList()
		return list, c.rest.Get().Namespace(namespace).Resource(resource).VersionedParams(&options, c.codec).Do(ctx).Into(list)
	})
}

// listAll reads all objects that have some labels, page by page.
func listAll[T any, P interface {
	*T
	runtime.Object
}](ctx context.Context, with labels.Set, read pager.ListPageFunc) ([]T, error) {
	list, _, err := pager.New(read).List(ctx, metav1.ListOptions{Limit: page, LabelSelector: with.String()})
	if err != nil {
		return nil, err
	}
	var all []T
	err = meta.EachListItem(list, func(item runtime.Object) error {
		object, ok := item.(P)
		if !ok {
			return fmt.Errorf("the API server listed a %T", item)
		}
		all = append(all, *object)
		return nil
	})
	return all, err
}

// requestRotation asks for a new key by the annotation of the Headscale, which must
// still be the one that was read.
func (c *cluster) requestRotation(ctx context.Context, headscale *v1beta1.Headscale, request string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":         headscale.UID,
		"annotations": map[string]string{v1beta1.AnnotationRotateRequestedAt: request},
	}})
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	_, err = c.headscales(headscale.Namespace).Patch(ctx, headscale.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	return err
}

// secretMetadata reads a Secret without its data.
func (c *cluster) secretMetadata(ctx context.Context, namespace, name string) (*metav1.PartialObjectMetadata, error) {
	return c.meta.Resource(secretsResource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
}

// listSecretMetadata reads the API key Secrets of a namespace without their data.
func (c *cluster) listSecretMetadata(ctx context.Context, namespace string) ([]metav1.PartialObjectMetadata, error) {
	with := labels.Set{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey}
	return listAll[metav1.PartialObjectMetadata](ctx, with, func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return c.meta.Resource(secretsResource).Namespace(namespace).List(ctx, options)
	})
}

// secretsResource names the resource of which only the metadata is read.
var secretsResource = corev1.SchemeGroupVersion.WithResource("secrets")

// secret reads a Secret with its data.
func (c *cluster) secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return c.core.Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

// pod reads a pod.
func (c *cluster) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return c.core.Pods(namespace).Get(ctx, name, metav1.GetOptions{})
}

// listPods reads the pods that the operator made in a namespace, or in all with "".
func (c *cluster) listPods(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	with := labels.Set{v1beta1.LabelManagedBy: v1beta1.ManagedBy}
	return listAll[corev1.Pod](ctx, with, func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return c.core.Pods(namespace).List(ctx, options)
	})
}
