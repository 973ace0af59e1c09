package resources

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
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

// FuzzRenderConfig checks that there is one text of a config, and that it is the one that sigs.k8s.io/yaml makes, unless
// that could make several: with another, every Headscale would restart when the operator is upgraded.
func FuzzRenderConfig(f *testing.F) {
	for _, seed := range []string{
		`{"a":null,"b":[true,false,"yes","~","null"],"c":{"d":-1,"e":9007199254740993,"f":[]},"g":{}}`,
		`{"1":"0770","true":"012","a b":"x: y","k10":1,"k9":2,"K":"# no","é":"\u2028\t\n","l":"line\nline\n","e":"","<&>":"<&>"}`,
		`{"a":1e6,"b":1.5,"c":1e21,"d":18446744073709551615,"e":-0.0,"f":1.0,"g":[1.2345678901234567e18,9.3e18,1e-7,1e20]}`,
		`{"long":"one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"}`,
		`{"date":"2026-01-01","octal":"0o7","hex":"0x7","float":"1e3","inf":".inf","colon":"1:30","bin":"0b1","merge":"<<","at":"@a","dash":"- a","under":"1_000"}`,
		`{"10.example":1,"1x.example":[{"10":1,"1x":2,"2":3}],"2.example":{"99999999999999999999":1,"9":2}}`,
		`{"9٠":1,"2000":1,"9222":1,"next":"x\u0085y","delete":"\u007f"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var config v1beta1.HeadscaleConfig
		if config.UnmarshalJSON(raw) != nil {
			return
		}
		document, err := config.Document()
		if err != nil {
			return
		}
		text, err := renderConfig(document)
		if err != nil {
			t.Fatalf("%s is not rendered: %v", raw, err)
		}
		for range 3 {
			if again, _ := renderConfig(document); again != text {
				t.Fatalf("%s is rendered as\n%s, and then as\n%s", raw, text, again)
			}
		}
		// It fails for a control character, and makes a space of the one for the next line.
		theirs, err := yaml.Marshal(document)
		if err == nil && string(theirs) != text && !hasUnorderedKeys(document) && !strings.Contains(text, `\N`) {
			t.Fatalf("%s is rendered as\n%s, and not as\n%s", raw, text, theirs)
		}
	})
}

// hasUnorderedKeys reports whether the YAML library has no order for the keys of some section.
func hasUnorderedKeys(value any) bool {
	switch value := value.(type) {
	case map[string]any:
		for key, entry := range value {
			if hasNoOrder(key) || hasUnorderedKeys(entry) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(value, hasUnorderedKeys)
	}
	return false
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
