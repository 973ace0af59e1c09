package v1beta1

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
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
