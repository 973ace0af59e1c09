package resources

import (
	"errors"
	"net"
	"strconv"
	"testing"

	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"0.0.0.0:8080", "[::]:8080", ":80", "8080", "a:b:c", "[::1%eth0]:1", "host:065", "x:+1", "x:65536", "", ":", "[]:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := parseAddress(text)
		if err != nil {
			return
		}
		if parsed.port < 1 || parsed.port > 65535 {
			t.Fatalf("%q has the port %d", text, parsed.port)
		}
		again, err := parseAddress(net.JoinHostPort(parsed.host, strconv.Itoa(int(parsed.port))))
		if err != nil || again != parsed {
			t.Fatalf("%q is %v, which written out is %v (%v)", text, parsed, again, err)
		}
	})
}

// FuzzBuild checks that no config makes the builders panic, that every error is one
// for the user, and that what was written is in config.yaml.
func FuzzBuild(f *testing.F) {
	for _, seed := range []string{
		`{"server_url":"http://a"}`,
		`{"server_url":"http://a","derp":{"server":{"enabled":true,"stun_listen_addr":":1"},"urls":"u"}}`,
		`{"server_url":"http://a","database":{"type":"postgres","postgres":{"host":"h"}},"dns":{"nameservers":{"global":["1.1.1.1"]}}}`,
		`{"server_url":"http://a","dns":[],"Prefixes":{},"a.b":1}`,
		`{"server_url":"http://a","listen_addr":"127.0.0.1:1","unix_socket":"/a/../b","metrics_listen_addr":":1"}`,
		`{"dns":null,"derp":{"server":null},"prefixes":{"v4":null}}`,
		`{"server_url":"%zz","tls_letsencrypt_hostname":"a"}`,
		`null`,
	} {
		f.Add([]byte(seed), "headscale/headscale", "1h")
	}
	f.Fuzz(func(t *testing.T, config []byte, image, expiration string) {
		headscale := &v1beta1.Headscale{}
		headscale.Name, headscale.Namespace = "headscale", "test"
		headscale.Spec.Version, headscale.Spec.Image = "v0.29.3", image
		headscale.Spec.APIKey.Expiration = v1beta1.Duration(expiration)
		if headscale.Spec.Config.UnmarshalJSON(config) != nil {
			return
		}
		objects, err := Build(headscale, operatorOptions)
		if err != nil {
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("%v is not an error for the user", err)
			}
			return
		}
		checkKept(t, config, objects.ConfigMap.Data[ConfigFile])
	})
}

// FuzzBuildOfSpec checks that no spec makes the builders panic, whatever admission let
// pass, and that every error is one for the user.
func FuzzBuildOfSpec(f *testing.F) {
	for _, seed := range []string{withReferences, withAdditions, shortSpec(", derp: null"), `{pod: {env: [{}], volumes: [{}], volume_mounts: [{}]}, secrets: {tls: {}}, files: {policy: {}}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, spec []byte) {
		headscale := &v1beta1.Headscale{}
		headscale.Name, headscale.Namespace = "headscale", "test"
		if yaml.Unmarshal(spec, &headscale.Spec) != nil {
			return
		}
		var invalid *InvalidError
		if _, err := Build(headscale, operatorOptions); err != nil && !errors.As(err, &invalid) {
			t.Fatalf("%v is not an error for the user", err)
		}
		References(headscale)
	})
}

// checkKept checks that every value that was written at the top level, and is not a
// section, is in the config that was built.
func checkKept(t *testing.T, written []byte, built string) {
	t.Helper()
	var want, got map[string]any
	if err := json.Unmarshal(written, &want); err != nil {
		return
	}
	if err := yaml.Unmarshal([]byte(built), &got); err != nil {
		t.Fatalf("config.yaml cannot be read: %v\n%s", err, built)
	}
	for key, value := range want {
		if text, ok := value.(string); ok && got[key] != text {
			t.Fatalf("%s is %q and was %q", key, got[key], text)
		}
	}
}
