package resources

import (
	"maps"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"
)

// ConnectionValues are settings of a PostgreSQL connection, and whether Headscale can use them.
var ConnectionValues = map[string]bool{
	"plain": true, "a=b": true, `a'b"c`: true, "größe": true, `a\b`: true, `a\ b`: true, `'two words'`: true, `'it\'s a \\'`: true,
	"two words": false, "a\tb": false, "a\vb": false, "a\nb": false,
	"'open": false, `'closed' and more`: false, "it's two": false, `last\`: false, `'last\'`: false,
}

// postgresSpec is a spec with the password of a database that nobody serves.
func postgresSpec(t *testing.T, setting, value string) string {
	settings := map[string]any{"host": "127.0.0.1", "port": 1, "name": "hs", "user": "hs", "pass": "secret"}
	settings[setting] = value
	spec, err := yaml.Marshal(map[string]any{"version": "v0.29.3", "config": map[string]any{
		"server_url": "http://headscale.example.com", "database": map[string]any{"type": "postgres", "postgres": settings},
	}})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return string(spec)
}

func TestConnectionValues(t *testing.T) {
	values := maps.Clone(ConnectionValues)
	values[" first"], values["last "] = false, false // Headscale would leave the space out
	for value, usable := range values {
		for _, setting := range []string{"host", "name", "user", "pass"} {
			_, err := Build(headscaleOf(t, postgresSpec(t, setting, value)), operatorOptions)
			if usable {
				NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%s %q", setting, value)
			} else {
				NewWithT(t).Expect(err).To(MatchError(HavePrefix("spec.config.database.postgres."+setting+" must not contain spaces")), "%q", value)
			}
		}
	}
}
