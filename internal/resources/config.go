package resources

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v2"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// ConfigFile is the name of the config's entry in the ConfigMap, and of the file in configDir.
const ConfigFile = "config.yaml"

const (
	// configDir is where Headscale looks for its config by itself.
	configDir = "/etc/headscale"

	// defaultSQLitePath is where Headscale's own example config puts the database.
	// Its directory is the data directory, also where the database is elsewhere.
	defaultSQLitePath = "/var/lib/headscale/db.sqlite"

	// defaultBaseDomain and otherBaseDomain are for MagicDNS. They are in the top-level
	// domain that is reserved for private use. Headscale refuses one that its own host
	// name lies in, so there are two.
	defaultBaseDomain = "tailnet.internal"
	otherBaseDomain   = "headscale.internal"
)

// completeConfig adds to a config what Headscale needs for a start, and returns its known
// fields. It only adds keys that every supported Headscale takes, and only where the user wrote
// nothing.
func completeConfig(completed document, spec *v1beta1.HeadscaleSpec) (v1beta1.HeadscaleConfig, error) {
	if err := checkConfig(completed); err != nil {
		return v1beta1.HeadscaleConfig{}, err
	}
	if err := checkConnection(completed); err != nil {
		return v1beta1.HeadscaleConfig{}, err
	}
	if err := refer(completed, spec); err != nil {
		return v1beta1.HeadscaleConfig{}, err
	}
	if err := complete(completed); err != nil {
		return v1beta1.HeadscaleConfig{}, err
	}
	if err := checkRelay(completed, spec); err != nil {
		return v1beta1.HeadscaleConfig{}, err
	}
	result, err := v1beta1.NewHeadscaleConfig(completed)
	if err != nil {
		return v1beta1.HeadscaleConfig{}, invalid("config", "cannot be written: %v", err)
	}
	return result, nil
}

// complete adds what Headscale needs for a start, section by section: later sections read
// what earlier ones have added.
func complete(d document) error {
	if err := completeListeners(d); err != nil {
		return err
	}
	if err := completeStorage(d); err != nil {
		return err
	}
	if err := completeNetwork(d); err != nil {
		return err
	}
	if err := completeDNS(d); err != nil {
		return err
	}
	if err := completeDERP(d); err != nil {
		return err
	}
	return completeTLS(d)
}

// renderConfig is the config as YAML, the same text for the same config: another one would restart Headscale.
// It is the text of sigs.k8s.io/yaml, but for the keys that hasNoOrder is about, and for control characters, which
// that refuses or changes. That one makes JSON of the config first and reads it as YAML, which takes
// three times the memory, in every reconcile.
func renderConfig(config document) (string, error) {
	text, err := yaml.Marshal(ordered(map[string]any(config)))
	if err != nil {
		return "", invalid("config", "cannot be written as YAML: %v", err)
	}
	return string(text), nil
}

// ordered is a value of which the YAML library makes the same text every time. The library sorts keys as people do,
// 2 before 10. But with a letter after a digit that is no order, and the text differs from time to time: 10.example is
// before 1x.example, which is before 2.example, which is before 10.example. A section with such keys is sorted
// by bytes.
func ordered(value any) any {
	switch value := value.(type) {
	case map[string]any:
		section, keys := make(map[string]any, len(value)), slices.Sorted(maps.Keys(value))
		for _, key := range keys {
			section[key] = ordered(value[key])
		}
		if !slices.ContainsFunc(keys, hasNoOrder) {
			return section
		}
		var sorted yaml.MapSlice
		for _, key := range keys {
			sorted = append(sorted, yaml.MapItem{Key: key, Value: section[key]})
		}
		return sorted
	case []any:
		list := make([]any, len(value))
		for i := range value {
			list[i] = ordered(value[i])
		}
		return list
	case float64:
		// As in JSON: 1000000, and not 1e+06.
		var number any
		if text, err := json.Marshal(value); err == nil && yaml.Unmarshal(text, &number) == nil {
			return number
		}
		return value
	default:
		return value
	}
}

// hasNoOrder reports whether the YAML library's order of keys can be none with this one: a letter follows a digit in
// it, or it has digits that are not ASCII, or a number that may not fit into an int64.
func hasNoOrder(key string) bool {
	digits := 0
	for _, r := range key {
		switch {
		case !unicode.IsDigit(r):
			if digits > 0 && unicode.IsLetter(r) {
				return true
			}
			digits = 0
		case digits == 18 || r > '9':
			return true
		default:
			digits++
		}
	}
	return false
}

// checkConfig refuses what would be read in another way than it was meant.
func checkConfig(d document) error {
	for key := range d {
		if strings.Contains(key, ".") {
			return invalid("config", "must not have the key %q: write its parts as nested sections", key)
		}
	}
	for _, known := range []string{"server_url", "tls_cert_path", "tls_key_path"} {
		if _, _, err := d.lookup(known); err != nil {
			return err
		}
	}
	permission, written, err := d.lookup("unix_socket_permission")
	if _, isText := permission.(string); err == nil && written && !isText {
		return invalid("config.unix_socket_permission", `must be a string in quotes, such as "0770": YAML takes 0770 without quotes for the number 504`)
	}
	return err
}

// completeListeners makes Headscale reachable from outside its container.
func completeListeners(d document) error {
	return d.fill(
		setting{"listen_addr", "0.0.0.0:8080"},
		setting{"metrics_listen_addr", "0.0.0.0:9090"},
		setting{"grpc_listen_addr", "0.0.0.0:50443"},
		setting{"unix_socket", v1beta1.DefaultSocketPath},
		// The API Key Manager may have another user, and has the group of the socket's volume.
		setting{"unix_socket_permission", "0770"},
		// A pod's version changes through the resource alone.
		setting{"disable_check_updates", true},
	)
}

// completeStorage puts the database and the private key into the data volume.
func completeStorage(d document) error {
	kind, err := databaseType(d)
	if err != nil {
		return err
	}
	if err := d.fill(setting{"database.type", kind}); err != nil {
		return err
	}
	if kind != "postgres" {
		if err := d.fill(setting{"database.sqlite.path", defaultSQLitePath}); err != nil {
			return err
		}
	}
	dir, err := dataDir(d)
	if err != nil {
		return err
	}
	return d.fill(setting{"noise.private_key_path", path.Join(dir, "noise_private.key")})
}

// databaseType is the kind of the database: what the user wrote, or sqlite. A
// PostgreSQL server that is described and not chosen is an oversight.
func databaseType(d document) (string, error) {
	kind, err := d.text("database.type")
	if err != nil || kind != "" {
		return kind, err
	}
	_, postgres, err := d.lookup("database.postgres.host")
	if err == nil && postgres {
		return "", invalid("config.database.type", "must be set where database.postgres is: postgres, or sqlite")
	}
	return "sqlite", err
}

// dataDir is where the data volume is mounted: the directory of the SQLite
// database, or the one where it would be.
func dataDir(d document) (string, error) {
	file, err := d.text("database.sqlite.path")
	if err != nil {
		return "", err
	}
	if kind, err := d.text("database.type"); err != nil || kind == "postgres" {
		file = ""
	}
	return path.Dir(cmp.Or(file, defaultSQLitePath)), err
}

// completeNetwork gives nodes addresses from the ranges that Tailscale's clients
// expect. One range alone is a choice.
func completeNetwork(d document) error {
	for _, family := range []string{"prefixes.v4", "prefixes.v6"} {
		if _, written, err := d.lookup(family); err != nil || written {
			return err
		}
	}
	return d.fill(
		setting{"prefixes.v4", "100.64.0.0/10"},
		setting{"prefixes.v6", "fd7a:115c:a1e0::/48"},
		setting{"prefixes.allocation", "sequential"},
	)
}

// completeDNS leaves a client's DNS alone unless the user wrote what it should be:
// Headscale's own defaults would stop it, because they ask for a domain and for
// name servers.
func completeDNS(d document) error {
	_, domain, err := d.lookup("dns.base_domain")
	if err != nil {
		return err
	}
	servers, err := d.list("dns.nameservers.global")
	if err != nil {
		return err
	}
	if !domain {
		if err := d.fill(setting{"dns.magic_dns", false}, setting{"dns.base_domain", freeBaseDomain(d)}); err != nil {
			return err
		}
	}
	if !servers {
		return d.fill(setting{"dns.override_local_dns", false})
	}
	return nil
}

// freeBaseDomain is a base domain that the host of server_url does not lie in.
func freeBaseDomain(d document) string {
	serverURL, _ := d["server_url"].(string)
	server, err := url.Parse(serverURL)
	if err != nil {
		return defaultBaseDomain
	}
	host := strings.ToLower(server.Hostname())
	if host == defaultBaseDomain || strings.HasSuffix(host, "."+defaultBaseDomain) {
		return otherBaseDomain
	}
	return defaultBaseDomain
}

// completeDERP sees to it that there is a relay: Headscale does not start without
// one. The one that is part of it depends on nothing outside the cluster.
func completeDERP(d document) error {
	given, err := derpGiven(d)
	if err != nil {
		return err
	}
	if !given {
		err = d.fill(setting{"derp.server.enabled", true}, setting{"derp.urls", []any{}}, setting{"derp.auto_update_enabled", false})
		if err != nil {
			return err
		}
	}
	embedded, err := d.flag("derp.server.enabled")
	if err != nil || !embedded {
		return err
	}
	dir, err := dataDir(d)
	if err != nil {
		return err
	}
	return d.fill(
		// The number and the code are those of Headscale's example config.
		setting{"derp.server.region_id", int64(999)},
		setting{"derp.server.region_code", "headscale"},
		setting{"derp.server.region_name", "Headscale"},
		setting{"derp.server.stun_listen_addr", "0.0.0.0:3478"},
		setting{"derp.server.private_key_path", path.Join(dir, "derp_server_private.key")},
	)
}

// derpGiven reports whether the user said where relays come from.
func derpGiven(d document) (bool, error) {
	urls, err := d.list("derp.urls")
	if err != nil {
		return false, err
	}
	paths, err := d.list("derp.paths")
	if err != nil {
		return false, err
	}
	_, server, err := d.lookup("derp.server.enabled")
	return slices.Contains([]bool{urls, paths, server}, true), err
}

// challengeTLS is the type of the challenge of Let's Encrypt that needs no port of its own.
const challengeTLS = "TLS-ALPN-01"

// completeTLS keeps the certificates that Headscale gets for itself, which by
// default go to a directory that cannot be written here, and writes down where it answers
// the challenge for them: the default is a port by its name, on every interface.
func completeTLS(d document) error {
	hostname, err := d.text("tls_letsencrypt_hostname")
	if err != nil || hostname == "" {
		return err
	}
	dir, err := dataDir(d)
	if err != nil {
		return err
	}
	if err := d.fill(setting{"tls_letsencrypt_cache_dir", path.Join(dir, "cache")}); err != nil {
		return err
	}
	kind, err := d.text("tls_letsencrypt_challenge_type")
	if err != nil || kind == challengeTLS {
		return err
	}
	return d.fill(setting{"tls_letsencrypt_listen", "0.0.0.0:80"})
}
