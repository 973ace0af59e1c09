package resources

import (
	"fmt"
	"strings"
	"testing"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// BenchmarkBuildLargest measures what a reconcile does with the largest configs that are
// accepted, without the API server.
func BenchmarkBuildLargest(b *testing.B) {
	var wide, names strings.Builder
	for i := range v1beta1.MaxConfigEntries - 20 {
		fmt.Fprintf(&wide, `,"key-%d":1`, i)
		if i < 2000 {
			fmt.Fprintf(&names, `,"dns_configs_%d_%s":1`, i, strings.Repeat("x", 80))
		}
	}
	for name, entries := range map[string]string{
		"usual":        "",
		"many values":  `,"x":[` + strings.TrimSuffix(strings.Repeat("1,", v1beta1.MaxConfigEntries-20), ",") + "]",
		"many keys":    wide.String(),
		"unknown keys": names.String(),
		"a long text":  `,"x":"` + strings.Repeat("x", v1beta1.MaxConfigSize-100) + `"`,
	} {
		b.Run(name, func(b *testing.B) {
			headscale := &v1beta1.Headscale{}
			headscale.Name, headscale.Namespace, headscale.Spec.Version = "headscale", "test", "v0.29.3"
			if err := headscale.Spec.Config.UnmarshalJSON([]byte(`{"server_url":"http://a.example"` + entries + "}")); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				draft, err := NewDraft(headscale)
				if err != nil {
					b.Fatal(err)
				}
				if err := draft.CheckConfigKeys(); err != nil {
					b.Fatal(err)
				}
				if _, err := draft.Build(operatorOptions); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
