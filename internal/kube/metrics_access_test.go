package kube_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/internal/kube/metrics"
)

// shipped is a ClusterRole of config/rbac, without its rules of one resource.
func shipped(file, without string) *rbacv1.ClusterRole {
	GinkgoHelper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "config", "rbac", file))
	Expect(err).NotTo(HaveOccurred())
	role := &rbacv1.ClusterRole{}
	Expect(yaml.UnmarshalStrict(raw, role)).To(Succeed())
	role.Rules = slices.DeleteFunc(role.Rules, func(rule rbacv1.PolicyRule) bool { return slices.Contains(rule.Resources, without) })
	return role
}

// bind gives a user or a ServiceAccount a role of its own name, for one spec.
func bind(ctx context.Context, role *rbacv1.ClusterRole, name string, to rbacv1.Subject) {
	GinkgoHelper()
	role.Name = name
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: []rbacv1.Subject{to},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}
	for _, object := range []client.Object{role, binding} {
		Expect(admin.Create(ctx, object)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(admin.Delete(ctx, object))).To(Succeed()) })
	}
}

// tokenOf makes a ServiceAccount and returns a token of it.
func tokenOf(ctx context.Context, namespace, name string) string {
	GinkgoHelper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	Expect(admin.Create(ctx, account)).To(Succeed())
	request := &authenticationv1.TokenRequest{}
	Expect(admin.SubResource("token").Create(ctx, account, request)).To(Succeed())
	return request.Status.Token
}

// guarded is a handler behind the filter, and what is known of it.
type guarded struct {
	handler http.Handler
	// reviews counts what the API server is asked.
	reviews atomic.Int64
	offset  atomic.Int64
	log     *gbytes.Buffer
}

// guard puts the filter, which acts as a user, in front of a page that says ok.
func guard(user string) *guarded {
	GinkgoHelper()
	g := &guarded{log: gbytes.NewBuffer()}
	as := rest.CopyConfig(config)
	as.Impersonate = rest.ImpersonationConfig{UserName: user}
	as.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			g.reviews.Add(1)
			return next.RoundTrip(request)
		})
	})
	httpClient, err := rest.HTTPClientFor(as)
	Expect(err).NotTo(HaveOccurred())
	now := func() time.Time { return time.Now().Add(time.Duration(g.offset.Load())) }
	filter, err := metrics.RequireAccess(now)(as, httpClient)
	Expect(err).NotTo(HaveOccurred())
	log := logr.FromSlogHandler(slog.NewTextHandler(g.log, nil))
	g.handler, err = filter(log, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }))
	Expect(err).NotTo(HaveOccurred())
	return g
}

// get asks for /metrics with an Authorization header, and returns the status and the page.
func (g *guarded) get(ctx context.Context, authorization string) (int, string) {
	return g.do(ctx, http.MethodGet, "/metrics", authorization)
}

func (g *guarded) do(ctx context.Context, method, path, authorization string) (int, string) {
	request := httptest.NewRequestWithContext(ctx, method, path, http.NoBody)
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	answer := httptest.NewRecorder()
	g.handler.ServeHTTP(answer, request)
	return answer.Code, answer.Body.String()
}

// roundTripper is a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

var _ = Describe("The filter of the metrics", func() {
	var namespace, token string

	BeforeEach(func(ctx SpecContext) {
		namespace = newNamespace(ctx)
		token = "Bearer " + tokenOf(ctx, namespace, "prometheus")
		bind(ctx, shipped("metrics_auth_role.yaml", ""), namespace+"-auth", rbacv1.Subject{Kind: "User", Name: namespace})
		// The API server knows of a new right a moment later.
		g := guard(namespace)
		Eventually(func() int { status, _ := g.get(ctx, "Bearer none"); return status }).WithContext(ctx).Should(Equal(http.StatusUnauthorized))
	})

	letIn := func(ctx context.Context) {
		GinkgoHelper()
		bind(ctx, shipped("metrics_reader_role.yaml", ""), namespace+"-reader",
			rbacv1.Subject{Kind: "ServiceAccount", Namespace: namespace, Name: "prometheus"})
	}

	It("refuses who does not say who they are", func(ctx SpecContext) {
		g := guard(namespace)
		for _, authorization := range []string{"", "Bearer", "Bearer ", "Basic YTpi", token[len("Bearer "):]} {
			status, why := g.get(ctx, authorization)
			Expect(status).To(Equal(http.StatusUnauthorized), authorization)
			Expect(why).To(ContainSubstring("There is no bearer token"))
		}
		Expect(g.reviews.Load()).To(BeZero(), "nobody has to ask the API server about that")
	})

	It("refuses a token that is none", func(ctx SpecContext) {
		status, why := guard(namespace).get(ctx, token[:len(token)-5]+"AAAAA")
		Expect(status).To(Equal(http.StatusUnauthorized))
		Expect(why).To(ContainSubstring("does not accept this bearer token"))
	})

	It("refuses who may not, and lets them in as soon as they may", func(ctx SpecContext) {
		g := guard(namespace)
		status, why := g.get(ctx, token)
		Expect(status).To(Equal(http.StatusForbidden))
		Expect(why).To(Equal("system:serviceaccount:" + namespace + ":prometheus may not get /metrics: " +
			"bind it to a ClusterRole with nonResourceURLs: [/metrics], verbs: [get]\n"))
		letIn(ctx)
		Eventually(func() int { status, _ := g.get(ctx, token); return status }).WithContext(ctx).Should(Equal(http.StatusOK))
		_, page := g.get(ctx, strings.Replace(token, "Bearer", "bearer", 1))
		Expect(page).To(Equal("ok"))
	})

	It("lets in for what was asked only", func(ctx SpecContext) {
		letIn(ctx)
		asked := guard(namespace)
		Eventually(func() int { status, _ := asked.get(ctx, token); return status }).WithContext(ctx).Should(Equal(http.StatusOK))
		g := guard(namespace) // The other one may have asked as often as it may in a second.
		status, _ := g.get(ctx, token)
		Expect(status).To(Equal(http.StatusOK))
		for path, method := range map[string]string{"/metrics": http.MethodPost, "/debug": http.MethodGet} {
			status, _ := g.do(ctx, method, path, token)
			Expect(status).To(Equal(http.StatusForbidden), path)
		}
	})

	It("asks again about somebody who was let in after a minute", func(ctx SpecContext) {
		letIn(ctx)
		g := guard(namespace)
		Eventually(func() int { status, _ := g.get(ctx, token); return status }).WithContext(ctx).Should(Equal(http.StatusOK))
		before := g.reviews.Load()
		for range 3 {
			status, _ := g.get(ctx, token)
			Expect(status).To(Equal(http.StatusOK))
		}
		Expect(g.reviews.Load()).To(Equal(before))

		Expect(admin.Delete(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: namespace + "-reader"}})).To(Succeed())
		Eventually(func() int {
			g.offset.Add(int64(metrics.AccessTTL))
			status, _ := g.get(ctx, token)
			return status
		}).WithContext(ctx).Should(Equal(http.StatusForbidden))
	})

	It("does not hand a flood on to the API server", func(ctx SpecContext) {
		g := guard(namespace)
		const requests = 200
		answers := make(chan int, requests)
		for range requests { // At once, since an API server that is slow would slow down one after the other.
			go func() {
				status, _ := g.get(ctx, "Bearer nonsense")
				answers <- status
			}()
		}
		statuses := map[int]int{}
		for range requests {
			statuses[<-answers]++
		}
		Expect(statuses).To(And(HaveLen(2), HaveKey(http.StatusUnauthorized), HaveKeyWithValue(http.StatusTooManyRequests, BeNumerically(">", 100))))
		Expect(g.log.Contents()).To(BeEmpty())
	})

	for _, missing := range []string{"tokenreviews", "subjectaccessreviews"} {
		It("lets nobody in, and says so once, without the right to create "+missing, func(ctx SpecContext) {
			letIn(ctx)
			user := namespace + "-less"
			bind(ctx, shipped("metrics_auth_role.yaml", missing), user, rbacv1.Subject{Kind: "User", Name: user})
			asked := guard(user)
			// Until the API server knows of the roles it says the same of the other right.
			Eventually(func() int64 {
				before := asked.reviews.Load()
				asked.get(ctx, token)
				return asked.reviews.Load() - before
			}).WithContext(ctx).Should(Equal(map[string]int64{"tokenreviews": 1, "subjectaccessreviews": 2}[missing]))
			g := guard(user) // The other one may have asked as often as it may in a second.
			for range 3 {
				status, why := g.get(ctx, token)
				Expect(status).To(Equal(http.StatusInternalServerError))
				Expect(why).To(ContainSubstring("the operator's log has the reason"))
			}
			Expect(strings.Count(string(g.log.Contents()), "config/rbac/metrics_auth_role.yaml")).To(Equal(1))

			By("the right being given back")
			bind(ctx, shipped("metrics_auth_role.yaml", ""), user+"-back", rbacv1.Subject{Kind: "User", Name: user})
			Eventually(func() int { status, _ := g.get(ctx, token); return status }).WithContext(ctx).Should(Equal(http.StatusOK))
			Expect(g.log).To(gbytes.Say("can be authenticated again"))
		})
	}
})
