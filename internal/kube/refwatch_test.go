package kube_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"infrado.cloud/headscale-operator/internal/kube/refwatch"
)

// openWatches counts the watches that an API server was asked for and that have not ended.
type openWatches struct {
	next  http.RoundTripper
	count *atomic.Int32
}

func (o openWatches) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := o.next.RoundTrip(request)
	// One that the API server was too busy for is asked for again, as a part of the same request.
	if err == nil && response.StatusCode == http.StatusOK && strings.Contains(request.URL.RawQuery, "watch=true") {
		o.count.Add(1)
		context.AfterFunc(request.Context(), func() { o.count.Add(-1) })
	}
	return response, err
}

var _ = Describe("The watches of references", func() {
	var watches *refwatch.Watches
	var open *atomic.Int32

	start := func(everywhere bool) {
		GinkgoHelper()
		counter := &atomic.Int32{}
		open = counter
		user := rest.CopyConfig(config)
		user.QPS = -1
		user.Wrap(func(next http.RoundTripper) http.RoundTripper { return openWatches{next, counter} })
		client, err := rest.HTTPClientFor(user)
		Expect(err).NotTo(HaveOccurred())
		running, stop := context.WithCancel(context.Background())
		DeferCleanup(stop)
		watches, err = refwatch.New(running, user, client, everywhere)
		Expect(err).NotTo(HaveOccurred())
	}
	// drain takes every event for as long as the spec runs.
	drain := func(ctx context.Context) {
		events := watches.Events()
		go func() {
			for {
				select {
				case <-events:
				case <-ctx.Done():
					return
				}
			}
		}()
	}

	It("tell of a change to those that refer to the object, for as long as they do", func(ctx context.Context) {
		namespace := newNamespace(ctx)
		start(false)
		first, second := types.NamespacedName{Namespace: namespace, Name: "first"}, types.NamespacedName{Namespace: namespace, Name: "second"}
		references := []refwatch.Reference{{Resource: "secrets", Name: "shared"}}

		watches.Sync(first, references)
		Eventually(watches.Events()).WithContext(ctx).Should(Receive(HaveField("Object.GetName()", "first")), "what is there when the watch starts")
		watches.Sync(second, append(references, refwatch.Reference{Resource: "secrets", Name: "own"}))
		Expect(watches.Len()).To(Equal(1), "one watch for all Secrets of a namespace")

		heard := func(g Gomega) string {
			var e event.GenericEvent
			g.Eventually(watches.Events()).WithContext(ctx).Should(Receive(&e))
			return e.Object.GetName()
		}
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shared"}}
		Expect(admin.Create(ctx, secret)).To(Succeed())
		Expect([]string{heard(NewGomega(Fail)), heard(NewGomega(Fail))}).To(ConsistOf("first", "second"))

		watches.Sync(first, nil)
		other := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "other"}}
		Expect(admin.Create(ctx, other)).To(Succeed())
		Expect(admin.Delete(ctx, secret)).To(Succeed())
		Expect(heard(NewGomega(Fail))).To(Equal("second"))

		watches.Sync(second, nil)
		Expect(watches.Len()).To(BeZero())
		Consistently(watches.Events(), "200ms").WithContext(ctx).ShouldNot(Receive())
	})

	DescribeTable("are few, however many refer to something", func(ctx context.Context, namespaces int, everywhere bool, wanted int) {
		start(everywhere)
		drain(ctx)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		goroutines := runtime.NumGoroutine()
		begun := time.Now()
		for i := range 500 {
			user := types.NamespacedName{Namespace: fmt.Sprintf("team-%d", i%namespaces), Name: fmt.Sprintf("headscale-%d", i)}
			watches.Sync(user, []refwatch.Reference{
				{Resource: "secrets", Name: fmt.Sprintf("keys-%d", i)}, {Resource: "secrets", Name: fmt.Sprintf("tls-%d", i)},
				{Resource: "configmaps", Name: fmt.Sprintf("policy-%d", i)},
			})
		}
		Expect(watches.Len()).To(Equal(wanted))
		Eventually(open.Load, "1m").WithContext(ctx).Should(BeEquivalentTo(wanted))
		runtime.GC()
		runtime.ReadMemStats(&after)
		AddReportEntry("measured", fmt.Sprintf("%d watches, %d goroutines, %d KiB in use, after %s",
			wanted, runtime.NumGoroutine()-goroutines, (int64(after.HeapInuse+after.StackInuse)-int64(before.HeapInuse+before.StackInuse))/1024, time.Since(begun).Round(time.Millisecond)))
	},
		Entry("in one namespace", 1, true, 2),
		Entry("in fifty", 50, true, 100),
		Entry("in five hundred", 500, true, 2),
		Entry("in five hundred of which each is watched by itself", 500, false, 1000),
	)
})
