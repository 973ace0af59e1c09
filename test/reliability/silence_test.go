package reliability_test

import (
	"context"
	"encoding/base64"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// seenKeys are all values that the Secrets of a namespace ever had.
type seenKeys struct {
	mutex  sync.Mutex
	values map[string]bool
	stop   func()
}

// watchKeys collects until stop.
func watchKeys(namespace string) *seenKeys {
	GinkgoHelper()
	ctx, cancel := context.WithCancel(context.Background())
	watcher, err := admin.Watch(ctx, &corev1.SecretList{}, client.InNamespace(namespace))
	Expect(err).NotTo(HaveOccurred())
	s := &seenKeys{values: map[string]bool{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for event := range watcher.ResultChan() {
			if secret, ok := event.Object.(*corev1.Secret); ok {
				s.add(string(secret.Data[v1beta1.SecretDataKey]))
			}
		}
	}()
	s.stop = sync.OnceFunc(func() {
		watcher.Stop()
		cancel()
		<-done
	})
	return s
}

func (s *seenKeys) add(value string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if value != "" {
		s.values[value] = true
	}
}

func (s *seenKeys) all() []string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	values := make([]string, 0, len(s.values))
	for value := range s.values {
		values = append(values, value)
	}
	return values
}

// expectSilence looks for every key in all that the managers printed.
func (w *world) expectSilence() {
	GinkgoHelper()
	printed, keys := w.printed.String(), w.seen.all()
	if w.faults != nil {
		keys = append(keys, w.faults.Texts()...)
	}
	for _, key := range keys {
		for _, form := range []string{key, secretOf(key), base64.StdEncoding.EncodeToString([]byte(key))} {
			Expect(strings.Contains(printed, form)).To(BeFalse(), "a key was printed")
		}
	}
}

// secretOf is the part of a key that nobody may know.
func secretOf(key string) string { return key[len(key)/2:] }
