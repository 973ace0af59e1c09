package status

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestRetriesWaitAMinuteAtMost(t *testing.T) {
	g := NewWithT(t)
	limiter := NewRateLimiter()
	request := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "a", Name: "b"}}
	var last time.Duration
	for range 100 {
		next := limiter.When(request)
		g.Expect(next).To(BeNumerically(">=", last))
		last = next
	}
	g.Expect(last).To(Equal(time.Minute))

	other := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "a", Name: "c"}}
	g.Expect(limiter.When(other)).To(BeNumerically("<=", 10*time.Millisecond), "the failures of another object")
	limiter.Forget(request)
	g.Expect(limiter.When(request)).To(BeNumerically("<=", 10*time.Millisecond), "after a success")
}
