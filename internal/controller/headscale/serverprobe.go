package headscale

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// serverInfo is what a running Headscale reports over HTTP to everybody, and nothing in
// Kubernetes says.
type serverInfo struct {
	// answered is whether it was reached.
	answered bool
	// version is its release, such as v0.29.3; "" where it does not say, as 0.26 does not.
	version string
	// withoutOIDC is whether it started without the identity provider of its config.
	withoutOIDC bool
}

const (
	// probeTimeout ends a request that hangs.
	probeTimeout = 3 * time.Second
	// maxConcurrentProbes is how many Headscales are asked at once.
	maxConcurrentProbes = 16
	// maxProbeBody and maxProbeHeaders are how much of an answer is read, in bytes; Headscale's
	// has some 200.
	maxProbeBody    = 4 << 10
	maxProbeHeaders = 16 << 10
)

// probeBackoff is when a Headscale is asked that did not answer, before it is left until the next
// start of its container or of the operator: where it cannot be reached, nothing is missing but
// the two warnings.
var probeBackoff = wait.Backoff{Duration: 2 * time.Second, Factor: 5, Steps: 3}

// serverProber asks each Headscale what it is, once after every start of its container. It does not
// keep a reconcile waiting: the answer triggers one. A nil serverProber asks nobody.
type serverProber struct {
	// ctx ends all requests.
	ctx    context.Context
	client *http.Client
	// events name the Headscales that have answered.
	events chan event.GenericEvent
	// slots limit how many are asked at once.
	slots chan struct{}

	lock sync.Mutex
	// asked are the inquiries, the newest of each Headscale.
	asked map[client.ObjectKey]*serverProbe
}

// serverProbe is what is known of one run of a Headscale.
type serverProbe struct {
	// container identifies the run: the container's ID.
	container string
	answer    serverInfo
}

// newServerProber returns a serverProber that asks until the context ends.
func newServerProber(ctx context.Context) *serverProber {
	return &serverProber{
		ctx: ctx,
		client: &http.Client{
			Timeout: probeTimeout,
			Transport: &http.Transport{
				DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxProbeHeaders,
				// The certificate is for the name that clients use, and what is asked is no secret.
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		events: make(chan event.GenericEvent),
		slots:  make(chan struct{}, maxConcurrentProbes),
		asked:  map[client.ObjectKey]*serverProbe{},
	}
}

// about returns what the Headscale in a pod has reported; nothing while it has not been asked.
func (i *serverProber) about(headscale *v1beta1.Headscale, pod *corev1.Pod, live *appsv1.StatefulSet) serverInfo {
	container := containerStatus(pod, resources.ContainerHeadscale)
	url := urlOf(pod, live)
	if i == nil || container == nil || container.ContainerID == "" || url == "" {
		return serverInfo{}
	}
	i.lock.Lock()
	defer i.lock.Unlock()
	key := client.ObjectKeyFromObject(headscale)
	known := i.asked[key]
	if known == nil || known.container != container.ContainerID {
		known = &serverProbe{container: container.ContainerID}
		i.asked[key] = known
		go i.ask(key, known, url)
	}
	return known.answer
}

// forget drops what is known of a Headscale.
func (i *serverProber) forget(headscale client.ObjectKey) {
	if i == nil {
		return
	}
	i.lock.Lock()
	defer i.lock.Unlock()
	delete(i.asked, headscale)
}

// ask asks a Headscale until it answers, and triggers a reconcile then.
func (i *serverProber) ask(key client.ObjectKey, about *serverProbe, url string) {
	select {
	case i.slots <- struct{}{}:
	case <-i.ctx.Done():
		return
	}
	defer func() { <-i.slots }()
	var answer serverInfo
	err := wait.ExponentialBackoffWithContext(i.ctx, probeBackoff, func(ctx context.Context) (bool, error) {
		var err error
		answer, err = probeServer(ctx, i.client, url)
		return err == nil, nil
	})
	if err != nil {
		log.FromContext(i.ctx).Info("Cannot ask a Headscale for its release: does a NetworkPolicy forbid it?", "namespace", key.Namespace, "name", key.Name, "address", url)
		return
	}
	i.lock.Lock()
	about.answer = answer
	i.lock.Unlock()
	headscale := &v1beta1.Headscale{}
	headscale.Namespace, headscale.Name = key.Namespace, key.Name
	select {
	case i.events <- event.GenericEvent{Object: headscale}:
	case <-i.ctx.Done():
	}
}

// probeServer asks the Headscale at an address, which is that of its HTTP port.
func probeServer(ctx context.Context, client *http.Client, url string) (serverInfo, error) {
	code, body, err := getPage(ctx, client, url+"/version")
	if err != nil {
		return serverInfo{}, err
	}
	var told struct{ Version string }
	if code == http.StatusOK {
		// What is no version of Headscale's is as good as none.
		_ = json.Unmarshal(body, &told)
	}
	code, _, err = getPage(ctx, client, url+"/oidc/callback")
	if err != nil {
		return serverInfo{}, err
	}
	// With an identity provider Headscale misses the parameters (400). Without one it has no such
	// page, which 0.28 answers with an empty one.
	return serverInfo{answered: true, version: told.Version, withoutOIDC: code == http.StatusNotFound || code == http.StatusOK}, nil
}

// getPage reads a page.
func getPage(ctx context.Context, client *http.Client, url string) (code int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxProbeBody))
	return response.StatusCode, body, err
}

// urlOf is where the Headscale of a pod can be reached over HTTP, or "" where that is
// unknown. One that gets its certificate itself answers to its own host name only.
func urlOf(pod *corev1.Pod, live *appsv1.StatefulSet) string {
	if pod == nil || live == nil || pod.Status.PodIP == "" {
		return ""
	}
	for _, container := range live.Spec.Template.Spec.Containers {
		if container.Name != resources.ContainerHeadscale || container.ReadinessProbe == nil || container.ReadinessProbe.HTTPGet == nil {
			continue
		}
		scheme := "http"
		if container.ReadinessProbe.HTTPGet.Scheme == corev1.URISchemeHTTPS {
			scheme = "https"
		}
		for _, port := range container.Ports {
			if port.Name == container.ReadinessProbe.HTTPGet.Port.StrVal {
				return scheme + "://" + net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port.ContainerPort)))
			}
		}
	}
	return ""
}

// observeServer asks a Headscale that has become available what it is.
func (r *Reconciler) observeServer(s scope, o *observed) {
	if runningVersion(s, *o) != "" {
		o.server = r.prober.about(s.headscale, o.pod, o.statefulSet)
	}
}

// otherVersion is the release that runs where it is of another minor release than the pod says,
// as behind a tag that moves; "" where it is not, or is not known. While Headscale has not
// answered, as after a restart of the operator, it is what the status says, if that is newer.
func otherVersion(s scope, o observed) string {
	if o.pod == nil {
		return ""
	}
	declared := resources.VersionOf(o.pod.Labels)
	if known := s.headscale.Status.Version; !o.server.answered && resources.CheckRollback(known, declared) != nil {
		return resources.OtherRelease(known, declared)
	}
	return resources.OtherRelease(o.server.version, declared)
}

// serverWarnings say what a Headscale that works reports of itself and should be otherwise.
func serverWarnings(s scope, o observed) []string {
	var warnings []string
	if other := otherVersion(s, o); other != "" {
		warnings = append(warnings, fmt.Sprintf("Headscale in pod %s is %s, and spec.version is %s: "+
			"set spec.version to the release of the image, because upgrades and config keys are checked against it", o.pod.Name, other, s.headscale.Spec.Version))
	}
	if o.server.withoutOIDC && o.oidcIssuer != "" {
		warnings = append(warnings, fmt.Sprintf("Headscale in pod %[1]s runs without OIDC, because the issuer %[2]s could not be reached when it started: "+
			"when it can be reached, restart Headscale with kubectl delete pod %[1]s", o.pod.Name, o.oidcIssuer))
	}
	return warnings
}
