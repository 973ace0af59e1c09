package metrics

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// AccessTTL is how long a positive answer about a client is cached. A token that has expired, or a
// permission that was revoked, still works for that long.
const AccessTTL = time.Minute

// Bounds on what a flood of requests can do.
const (
	// reviewsPerSecond and reviewsAtOnce limit the requests to the API server. The controllers'
	// requests have their own limits.
	reviewsPerSecond = 10
	reviewsAtOnce    = 20
	// maxRemembered is the maximum number of clients in the cache.
	maxRemembered = 100
)

// access asks the API server who sends a request, and whether they may. It uses the two clients and
// not the delegating ones of k8s.io/apiserver, which would make the program larger by half:
// docs/decisions/2026-11-26-metrics-over-https.md.
type access struct {
	tokens  authenticationclient.TokenReviewInterface
	rights  authorizationclient.SubjectAccessReviewInterface
	limiter flowcontrol.PassiveRateLimiter
	allowed *cache.LRUExpireCache
	log     logr.Logger
	failing atomic.Bool
}

// clock is what the cache needs of a clock.
type clock func() time.Time

// Now is the time.
func (c clock) Now() time.Time { return c() }

// RequireAccess returns a FilterProvider of controller-runtime's metrics server. It admits requests
// with a token whose user has permission for the request's path and verb, such as nonResourceURLs:
// [/metrics], verbs: [get]. The operator needs permission to create TokenReviews and
// SubjectAccessReviews.
func RequireAccess(now func() time.Time) func(*rest.Config, *http.Client) (metricsserver.Filter, error) {
	return func(config *rest.Config, httpClient *http.Client) (metricsserver.Filter, error) {
		return newFilter(now, config, httpClient)
	}
}

// newFilter creates the clients.
func newFilter(now func() time.Time, config *rest.Config, httpClient *http.Client) (metricsserver.Filter, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.RateLimiter = -1, nil // what is too much is refused, and does not wait
	tokens, err := authenticationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("creating the client of TokenReviews: %w", err)
	}
	rights, err := authorizationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("creating the client of SubjectAccessReviews: %w", err)
	}
	return func(log logr.Logger, next http.Handler) (http.Handler, error) {
		a := &access{
			tokens: tokens.TokenReviews(), rights: rights.SubjectAccessReviews(),
			limiter: flowcontrol.NewTokenBucketPassiveRateLimiter(reviewsPerSecond, reviewsAtOnce),
			allowed: cache.NewLRUExpireCacheWithClock(maxRemembered, clock(now)), log: log,
		}
		return a.require(next), nil
	}, nil
}

// require is a handler that admits only permitted requests.
func (a *access) require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if status, why := a.check(request); status != http.StatusOK {
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			http.Error(w, why, status)
			return
		}
		next.ServeHTTP(w, request)
	})
}

// permit is what a client was admitted for. It has the token's digest, so that no token is kept.
type permit struct {
	token      [sha256.Size]byte
	verb, path string
}

// check returns http.StatusOK, or the status of a refusal and its reason.
func (a *access) check(request *http.Request) (int, string) {
	scheme, token, _ := strings.Cut(request.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return http.StatusUnauthorized, "There is no bearer token: send one of a ServiceAccount that may get " + request.URL.Path
	}
	wanted := permit{sha256.Sum256([]byte(token)), strings.ToLower(request.Method), request.URL.Path}
	if _, found := a.allowed.Get(wanted); found {
		return http.StatusOK, ""
	}
	if !a.limiter.TryAccept() {
		return http.StatusTooManyRequests, "Too many requests of clients that are not authenticated yet: retry later"
	}
	ctx, cancel := context.WithTimeout(request.Context(), ScrapeTimeout)
	defer cancel()
	status, why, err := a.review(ctx, token, wanted)
	if request.Context().Err() == nil { // else it is the client who has gone
		a.note(err)
	}
	if status == http.StatusOK {
		a.allowed.Add(wanted, nil, AccessTTL)
	}
	return status, why
}

// review asks the API server. An error comes with the status and the reason to answer with.
func (a *access) review(ctx context.Context, token string, wanted permit) (int, string, error) {
	const failed = "The API server did not say whether you may read this; the operator's log has the reason"
	who, err := a.tokens.Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return http.StatusInternalServerError, failed, fmt.Errorf("creating a TokenReview: %w", err)
	}
	if !who.Status.Authenticated {
		return http.StatusUnauthorized, "The API server does not accept this bearer token", nil
	}
	answer, err := a.rights.Create(ctx, reviewOf(&who.Status.User, wanted), metav1.CreateOptions{})
	switch {
	case err != nil:
		return http.StatusInternalServerError, failed, fmt.Errorf("creating a SubjectAccessReview: %w", err)
	case !answer.Status.Allowed:
		return http.StatusForbidden, fmt.Sprintf("%s may not %s %s: bind it to a ClusterRole with nonResourceURLs: [%[3]s], verbs: [%[2]s]",
			who.Status.User.Username, wanted.verb, wanted.path), nil
	}
	return http.StatusOK, "", nil
}

// reviewOf asks whether a user may do what is wanted.
func reviewOf(user *authenticationv1.UserInfo, wanted permit) *authorizationv1.SubjectAccessReview {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, value := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(value)
	}
	return &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: wanted.verb, Path: wanted.path},
	}}
}

// note logs that the API server cannot be queried, once until it can be again.
func (a *access) note(err error) {
	if failing := err != nil; a.failing.Swap(failing) == failing {
		return
	}
	if err == nil {
		a.log.Info("Clients of the metrics can be authenticated again")
		return
	}
	a.log.Error(err, "Clients of the metrics cannot be authenticated: the operator needs the right to create TokenReviews and SubjectAccessReviews (config/rbac/metrics_auth_role.yaml), or --metrics-secure=false")
}
