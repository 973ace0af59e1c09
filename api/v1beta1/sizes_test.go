package v1beta1

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestConfigLimits(t *testing.T) {
	nested := func(levels int) string {
		return `{"a":` + strings.Repeat("[", levels-1) + strings.Repeat("]", levels-1) + "}"
	}
	wide := func(entries int) string { return `{"a":[` + strings.Repeat("1,", entries-2) + "1]}" }
	for name, test := range map[string]struct{ text, refusal string }{
		"a usual config":                      {`{"server_url":"http://x","dns":{"a":[1,2]}}`, ""},
		"all levels":                          {nested(MaxConfigDepth), ""},
		"a level too many":                    {nested(MaxConfigDepth + 1), "it has 33 levels of sections and lists, and 32 are allowed: nest it less"},
		"all values":                          {wide(MaxConfigEntries), ""},
		"a value too many":                    {wide(MaxConfigEntries + 1), "it has 10001 values, and 10000 are allowed: make it shorter"},
		"as long as may be":                   {`{"a":"` + strings.Repeat("x", MaxConfigSize-8) + `"}`, ""},
		"a byte too long":                     {`{"a":"` + strings.Repeat("x", MaxConfigSize-7) + `"}`, "it has 262145 bytes, and 262144 are allowed: make it shorter"},
		"brackets and commas within a string": {`{"a":"` + strings.Repeat(`[{,\"`, 10_000) + `"}`, ""},
		"a string that ends with a backslash": {`{"a":"\\","b":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "}", "it has 41 levels of sections and lists, and 32 are allowed: nest it less"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var config HeadscaleConfig
			g.Expect(json.Unmarshal([]byte(test.text), &config)).To(Succeed())
			_, err := config.Document()
			if test.refusal == "" {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				g.Expect(err).To(MatchError(test.refusal))
			}
		})
	}
}

// TestRefusedConfigTakesLittleMemory has a config that would take some hundred megabytes as
// a decoded document.
func TestRefusedConfigTakesLittleMemory(t *testing.T) {
	g := NewWithT(t)
	var config HeadscaleConfig
	g.Expect(json.Unmarshal([]byte(`{"a":[`+strings.Repeat("[],", 330_000)+"[]]}"), &config)).To(Succeed())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := config.Document()
	runtime.ReadMemStats(&after)
	g.Expect(err).To(HaveOccurred())
	g.Expect(after.TotalAlloc - before.TotalAlloc).To(BeNumerically("<", 64<<10))
}

func TestShed(t *testing.T) {
	labels := func(number, length int) map[string]string {
		all := map[string]string{}
		for i := range number {
			all[fmt.Sprintf("l%04d", i)] = strings.Repeat("x", length)
		}
		return all
	}
	for name, test := range map[string]struct {
		change           func(*Headscale)
		tooLarge, config string
	}{
		"a usual one": {change: func(*Headscale) {}},
		"what kubectl and the API server note": {change: func(h *Headscale) {
			h.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: strings.Repeat("x", MaxSize)}
			h.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: strings.Repeat("x", MaxSize)}}
		}},
		"a long status": {change: func(h *Headscale) { h.Status.Warning = strings.Repeat("x", MaxSize) }},
		"many labels":   {change: func(h *Headscale) { h.Labels = labels(MaxEntries, 0) }, tooLarge: "values, and 4000 are allowed"},
		"long annotations": {
			change:   func(h *Headscale) { h.Annotations = labels(100, 2000) },
			tooLarge: "bytes, and 131072 are allowed",
		},
		"a large pod": {
			change: func(h *Headscale) {
				h.Spec.Pod.Env = []corev1.EnvVar{{Name: "A", Value: strings.Repeat("x", MaxSize)}}
			},
			tooLarge: "bytes, and 131072 are allowed",
		},
		"a large config": {
			change: func(h *Headscale) {
				_ = json.Unmarshal([]byte(`{"a":"`+strings.Repeat("x", MaxConfigSize)+`"}`), &h.Spec.Config)
			},
			config: "it has 262152 bytes, and 262144 are allowed: make it shorter",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			headscale := &Headscale{}
			headscale.Name, headscale.Spec.Version, headscale.Spec.APIKey.SecretName = "headscale", "v0.29.3", "key"
			g.Expect(json.Unmarshal([]byte(`{"a":1}`), &headscale.Spec.Config)).To(Succeed())
			test.change(headscale)
			g.Expect(headscale.DeepCopy().TooLarge()).To(ContainSubstring(test.tooLarge))
			headscale.Shed()
			headscale.Shed() // once more changes nothing
			headscale = headscale.DeepCopy()
			if test.tooLarge == "" {
				g.Expect(headscale.TooLarge()).To(BeEmpty())
			} else {
				g.Expect(headscale.TooLarge()).To(ContainSubstring(test.tooLarge))
			}
			g.Expect(headscale.ManagedFields).To(BeEmpty())
			g.Expect(headscale.Spec).To(And(HaveField("Version", "v0.29.3"), HaveField("APIKey.SecretName", "key")))
			document, err := headscale.Spec.Config.Document()
			if test.config != "" {
				g.Expect(err).To(MatchError(test.config))
			} else {
				g.Expect(document).To(HaveKey("a"))
			}
			headscale.Status = HeadscaleStatus{}
			kept, err := json.Marshal(headscale)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(len(kept)).To(BeNumerically("<", 2000))
		})
	}
}
