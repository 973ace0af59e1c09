package v1beta1_test

import (
	"strings"
	"testing"
	"time"
	"unsafe"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

func TestLedgerEntries(t *testing.T) {
	type entry struct {
		name string
		at   time.Time
	}
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for list, want := range map[string][]entry{
		"":                       nil,
		"a@2026-11-24T12:00:00Z": {{"a", noon}},
		"a@2026-11-24T13:00:00+01:00, b@2026-11-24T12:00:00.5Z":                         {{"a", noon}, {"b", noon.Add(time.Second / 2)}},
		",a,@2026-11-24T12:00:00Z,b@soon,c@0001-01-01T00:00:00Z,d@2026-11-24T12:00:00Z": {{"d", noon}},
		"2027-04-01T00:00:00.5+01:00@2026-11-24T12:00:00Z,a_B-9@2026-11-24T12:00:00Z":   {{"2027-04-01T00:00:00.5+01:00", noon}, {"a_B-9", noon}},
		"$(id)@2026-11-24T12:00:00Z,a b@2026-11-24T12:00:00Z,\x1b[31m@2026-11-24T12:00:00Z,\u202e@2026-11-24T12:00:00Z," +
			strings.Repeat("x", 65) + "@2026-11-24T12:00:00Z": nil,
	} {
		var got []entry
		for name, at := range v1beta1.LedgerEntries(list) {
			got = append(got, entry{name, at})
		}
		NewWithT(t).Expect(got).To(Equal(want), list)
	}
	for range v1beta1.LedgerEntries("a@2026-11-24T12:00:00Z,b@2026-11-24T12:00:00Z") {
		break
	}
}

func TestIsAPIKeySecret(t *testing.T) {
	g := NewWithT(t)
	g.Expect(v1beta1.IsAPIKeySecret(nil)).To(BeFalse())
	g.Expect(v1beta1.IsAPIKeySecret(map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy})).To(BeFalse())
	g.Expect(v1beta1.IsAPIKeySecret(map[string]string{v1beta1.LabelComponent: v1beta1.ComponentAPIKey})).To(BeFalse())
	g.Expect(v1beta1.IsAPIKeySecret(map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey, "a": "b"})).To(BeTrue())
}

func TestShortenRotationRequest(t *testing.T) {
	g := NewWithT(t)
	request := strings.Repeat("x", 200_000)
	annotations := map[string]string{v1beta1.AnnotationRotateRequestedAt: request}
	v1beta1.ShortenRotationRequest(annotations)
	short := annotations[v1beta1.AnnotationRotateRequestedAt]
	g.Expect(short).To(HaveLen(v1beta1.MaxRotationRequest + 1))
	g.Expect(unsafe.StringData(short)).NotTo(BeIdenticalTo(unsafe.StringData(request)), "the request is kept whole in memory")
}
