package resources

import (
	"errors"
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

func TestCheckUpgrade(t *testing.T) {
	for _, test := range []struct{ from, to, sentence string }{
		{"", "v0.29.3", ""},
		{"v0.29.3", "v0.29.3", ""},
		{"v0.29.3", "v0.29.1", ""},
		{"v0.27.1", "0.28.0", ""},
		{"v0.28.0", "v0.29.0-beta.1", ""},
		{"built by hand", "v0.29.3", ""},
		{"v0.27.1", "v0.29.3", "spec.version cannot go from v0.27.1 to v0.29.3: minor versions must not be skipped, because each migrates the database; go to the latest v0.28 first, wait until it is ready, and go on from there. The pod is left as it is"},
		{"v0.29.3", "v0.28.0", "spec.version cannot go from v0.29.3 to v0.28.0: its database cannot go back to an older version; write v0.29.3 again, or restore a backup of the data to a Headscale with another name. The pod is left as it is"},
		{"v0.30.0", "v1.0.0", "spec.version cannot go from v0.30.0 to v1.0.0: a new major version is a new database; create a Headscale with another name. The pod is left as it is"},
		{"v1.0.0", "v0.30.0", "spec.version cannot go from v1.0.0 to v0.30.0: its database cannot go back to an older version; write v1.0.0 again, or restore a backup of the data to a Headscale with another name. The pod is left as it is"},
	} {
		t.Run(test.from+" to "+test.to, func(t *testing.T) {
			g := NewWithT(t)
			err := CheckUpgrade(test.from, test.to)
			if test.sentence == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(test.sentence))
			var refused *UpgradeError
			g.Expect(errors.As(err, &refused)).To(BeTrue())
			g.Expect(refused.Reason()).To(Equal(v1beta1.ReasonUpgradeRefused))
		})
	}
}

func TestCheckConfigKeys(t *testing.T) {
	for name, test := range map[string]struct {
		version  string
		config   map[string]any
		sentence string
	}{
		"nothing removed":         {"v0.29.3", map[string]any{"node": map[string]any{"expiry": "180d"}}, ""},
		"a key that has gone":     {"v0.29.3", map[string]any{"randomize_client_port": false}, "spec.config.randomize_client_port is no longer a key of Headscale v0.29.3, which would not start with it: remove it, and write randomizeClientPort in the policy if you want it"},
		"a key that goes later":   {"v0.28.0", map[string]any{"randomize_client_port": false}, ""},
		"a key that moved":        {"v0.30.0", map[string]any{"oidc": map[string]any{"expiry": "180d"}}, "spec.config.oidc.expiry is no longer a key of Headscale v0.30.0, which would not start with it: write node.expiry instead"},
		"a key that is not set":   {"v0.29.3", map[string]any{"oidc": map[string]any{"expiry": nil}}, ""},
		"an old name":             {"v0.26.0", map[string]any{"acl_policy_path": "/policy"}, "spec.config.acl_policy_path is no longer a key of Headscale v0.26.0, which would not start with it: write policy.path instead"},
		"an old name and the new": {"v0.26.0", map[string]any{"acl_policy_path": "/policy", "policy": map[string]any{"path": "/policy"}}, ""},
		"a section that is none":  {"v0.26.0", map[string]any{"dns_config": "no"}, "spec.config.dns_config must be a section with keys of its own"},
		"no version":              {"main", map[string]any{"acl_policy_path": "/policy"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			config, err := v1beta1.NewHeadscaleConfig(test.config)
			g.Expect(err).NotTo(HaveOccurred())
			draft, err := NewDraft(&v1beta1.Headscale{Spec: v1beta1.HeadscaleSpec{Version: test.version, Config: config}})
			g.Expect(err).NotTo(HaveOccurred())
			err = draft.CheckConfigKeys()
			if test.sentence == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(test.sentence))
		})
	}
}

func TestVariablesOfRemovedKeys(t *testing.T) {
	for name, test := range map[string]struct{ version, env, sentence string }{
		"a key that has gone":     {"v0.29.3", "HEADSCALE_OIDC_EXPIRY", "spec.pod.env has HEADSCALE_OIDC_EXPIRY, the variable of oidc.expiry, which is no longer a key of Headscale v0.29.3, so that it would not start: write node.expiry instead"},
		"a key that goes later":   {"v0.28.0", "HEADSCALE_OIDC_EXPIRY", ""},
		"an old name":             {"v0.28.0", "HEADSCALE_ACL_POLICY_PATH", "spec.pod.env has HEADSCALE_ACL_POLICY_PATH"},
		"an old name and the new": {"v0.28.0", "HEADSCALE_ACL_POLICY_PATH, value: x}, {name: HEADSCALE_POLICY_PATH", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			headscale := headscaleOf(t, `{version: `+test.version+`, config: {server_url: "http://a.example"}, pod: {env: [{name: `+test.env+`, value: x}]}}`)
			draft, err := NewDraft(headscale)
			g.Expect(err).NotTo(HaveOccurred())
			err = draft.CheckConfigKeys()
			if test.sentence == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(HavePrefix(test.sentence)))
			var invalid *InvalidError
			g.Expect(errors.As(err, &invalid)).To(BeTrue())
			g.Expect(invalid.Reason()).To(Equal(v1beta1.ReasonInvalidConfig))
		})
	}
}

func TestAnImageOfAnotherRelease(t *testing.T) {
	for image, refused := range map[string]bool{
		"headscale/headscale:v0.28.0":                       true,
		"registry.example:5000/headscale:0.27.1-debug":      true,
		"headscale/headscale:v0.28.0@sha256:0000":           true,
		"headscale/headscale:v0.29.1":                       false,
		"headscale/headscale:v0.29.3-debug":                 false,
		"headscale/headscale":                               false,
		"registry.example:5000/headscale":                   false,
		"registry.example/headscale:mine":                   false,
		"registry.example/headscale:20261126.1.0":           false,
		"registry.example/headscale:0.28":                   false,
		"registry.example/headscale@sha256:0000":            false,
		"registry.example/v0.28.0/headscale:sha-0123456789": false,
	} {
		t.Run(image, func(t *testing.T) {
			headscale := headscaleOf(t, shortSpec(""))
			headscale.Spec.Image = image
			_, err := Build(headscale, operatorOptions)
			if refused {
				NewWithT(t).Expect(err).To(MatchError(MatchRegexp(`spec.image has the tag \S+, and spec.version is v0.29.3: set it to the release of the image`)))
			} else {
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
			}
		})
	}
}

func TestCheckRollback(t *testing.T) {
	for name, test := range map[string]struct {
		started, to string
		refused     bool
	}{
		"back":              {"v0.29.3", "v0.28.0", true},
		"back to a patch":   {"v0.29.3", "v0.29.0", false},
		"on":                {"v0.28.0", "v0.30.0", false},
		"nothing known":     {"", "v0.28.0", false},
		"something unknown": {"main", "v0.28.0", false},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(CheckRollback(test.started, test.to) != nil).To(Equal(test.refused))
		})
	}
}

// FuzzCheckUpgrade looks for versions that cannot be compared.
func FuzzCheckUpgrade(f *testing.F) {
	f.Add("v0.27.1", "v0.29.3")
	f.Fuzz(func(t *testing.T, from, to string) {
		if err := CheckUpgrade(from, from); err != nil {
			t.Errorf("%q is not itself: %v", from, err)
		}
		if CheckUpgrade(from, to) == nil && CheckUpgrade(to, from) == nil {
			was, ok := parseRelease(from)
			is, okay := parseRelease(to)
			if ok && okay && !was.EqualTo(is) {
				t.Errorf("from %q to %q and back", from, to)
			}
		}
	})
}

func TestOtherRelease(t *testing.T) {
	g := NewWithT(t)
	for _, test := range []struct{ told, declared, want string }{
		{"v0.29.3", "v0.28.0", "v0.29.3"},
		{"0.29.3", "v0.28.0", "v0.29.3"},
		{"v0.29.3-rc.1", "v0.28.0", "v0.29.3"},
		{"v0.29.3", "v0.29.0", ""},
		{"v0.29.3", "0.29.3-debug", ""},
		{"", "v0.29.3", ""},
		{"dev", "v0.29.3", ""},
		{"\x1b[31m0.1.2", "v0.29.3", ""},
	} {
		g.Expect(OtherRelease(test.told, test.declared)).To(Equal(test.want), "%+v", test)
	}
}
