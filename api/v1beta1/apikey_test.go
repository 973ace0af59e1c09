package v1beta1_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

func TestDefaultRotationBuffer(t *testing.T) {
	for expiration, want := range map[time.Duration]time.Duration{
		v1beta1.DefaultExpiration: 1920 * time.Hour,
		720 * time.Hour:           640 * time.Hour,
		time.Hour:                 53*time.Minute + 20*time.Second,
		10 * time.Second:          8 * time.Second,
		9 * time.Second:           8 * time.Second,
		900 * time.Millisecond:    800 * time.Millisecond,
		2:                         1,
		1:                         0,
	} {
		NewWithT(t).Expect(v1beta1.DefaultRotationBuffer(expiration)).To(Equal(want), "of %s", expiration)
	}
}

func FuzzDefaultRotationBuffer(f *testing.F) {
	f.Add(int64(1))
	f.Add(int64(v1beta1.DefaultExpiration))
	f.Fuzz(func(t *testing.T, nanoseconds int64) {
		if nanoseconds < 2 {
			return
		}
		if buffer := v1beta1.DefaultRotationBuffer(time.Duration(nanoseconds)); buffer <= 0 || int64(buffer) >= nanoseconds {
			t.Fatalf("the buffer of %s is %s", time.Duration(nanoseconds), buffer)
		}
	})
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"2160h": 2160 * time.Hour, "1h30m": 90 * time.Minute, "0.5s": 500 * time.Millisecond} {
		NewWithT(t).Expect(v1beta1.Duration(text).Parse()).To(Equal(want))
		NewWithT(t).Expect(v1beta1.Delay(text).Parse()).To(Equal(want))
	}
	for text, sentence := range map[string]string{
		"90d": "write 90 days as 2160h", "": "is not a duration", "h": "is not a duration",
		"0s": "is not a positive duration", "-1h": "is not a positive duration",
	} {
		_, err := v1beta1.Duration(text).Parse()
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(sentence)), text)
	}
	NewWithT(t).Expect(v1beta1.Delay("").Parse()).To(BeZero())
	NewWithT(t).Expect(v1beta1.Delay("0s").Parse()).To(BeZero())
	for text, sentence := range map[string]string{"1d": "is not a duration", "-1s": "is negative"} {
		_, err := v1beta1.Delay(text).Parse()
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(sentence)), text)
	}
}

func TestLifetime(t *testing.T) {
	for name, test := range map[string]struct {
		spec v1beta1.APIKeySpec
		want v1beta1.KeyLifetime
		err  string
	}{
		"nothing written":      {v1beta1.APIKeySpec{}, v1beta1.KeyLifetime{Expiration: 2160 * time.Hour, RotationBuffer: 1920 * time.Hour}, ""},
		"an expiration alone":  {v1beta1.APIKeySpec{Expiration: "720h"}, v1beta1.KeyLifetime{Expiration: 720 * time.Hour, RotationBuffer: 640 * time.Hour}, ""},
		"everything written":   {v1beta1.APIKeySpec{Expiration: "3h", RotationBuffer: "2h", RevocationDelay: "1h"}, v1beta1.KeyLifetime{Expiration: 3 * time.Hour, RotationBuffer: 2 * time.Hour, RevocationDelay: time.Hour}, ""},
		"a bad expiration":     {v1beta1.APIKeySpec{Expiration: "90d"}, v1beta1.KeyLifetime{}, `api_key.expiration: "90d" is not a duration`},
		"a bad buffer":         {v1beta1.APIKeySpec{RotationBuffer: "x"}, v1beta1.KeyLifetime{}, `api_key.rotation_buffer: "x" is not a duration`},
		"a bad delay":          {v1beta1.APIKeySpec{RevocationDelay: "-1s"}, v1beta1.KeyLifetime{}, `api_key.revocation_delay: "-1s" is negative`},
		"a buffer too long":    {v1beta1.APIKeySpec{Expiration: "1h", RotationBuffer: "1h"}, v1beta1.KeyLifetime{}, "api_key.rotation_buffer (1h0m0s) must be less than api_key.expiration (1h0m0s)"},
		"a delay too long":     {v1beta1.APIKeySpec{RotationBuffer: "1h", RevocationDelay: "1h"}, v1beta1.KeyLifetime{}, "api_key.revocation_delay (1h0m0s) must be less than api_key.rotation_buffer (1h0m0s)"},
		"no delay, no buffer?": {v1beta1.APIKeySpec{Expiration: "0.000000001s", RevocationDelay: "0s"}, v1beta1.KeyLifetime{Expiration: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, err := test.spec.Lifetime()
			if test.err != "" {
				g.Expect(err).To(MatchError(ContainSubstring(test.err)))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got).To(Equal(test.want))
		})
	}
}

func TestAPIKeyDefaults(t *testing.T) {
	g := NewWithT(t)
	yes, no := true, false
	g.Expect((&v1beta1.APIKeySpec{}).Managed()).To(BeTrue())
	g.Expect((&v1beta1.APIKeySpec{AutoManage: &yes}).Managed()).To(BeTrue())
	g.Expect((&v1beta1.APIKeySpec{AutoManage: &no}).Managed()).To(BeFalse())
	g.Expect((&v1beta1.APIKeySpec{}).EffectiveSecretName()).To(Equal("headscale-api-key"))
	g.Expect((&v1beta1.APIKeySpec{SecretName: "other"}).EffectiveSecretName()).To(Equal("other"))
}
