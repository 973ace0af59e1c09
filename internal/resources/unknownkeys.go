package resources

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/agnivade/levenshtein"
	"k8s.io/apimachinery/pkg/util/version"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/redact"
)

// configKey is a key that the config loader of Headscale reads.
type configKey struct {
	path string
	// freeForm is whether its value is a map whose keys are the user's own.
	freeForm bool
	// first and last are the releases that read it, as indexes of knownReleases.
	first, last int
}

const (
	// maxAdvice is more than the longest advice of successors, in bytes.
	maxAdvice = 250
	// maxUnknownKeys is how many keys one warning names.
	maxUnknownKeys = 10
	// maxTypo is how many letters a key may differ from the one that it is taken for.
	maxTypo = 3
	// maxKeyName is the longest name of a key that is printed, or taken for a typo, in bytes.
	maxKeyName = 80
)

// successors say what to write instead of keys that Headscale had before 0.23 and ignores
// since. Keys that it refuses are in removedKeys.
var successors = map[string]string{
	"db_type":                    "write database.type",
	"db_path":                    "write database.sqlite.path",
	"db_host":                    "write database.postgres.host",
	"db_port":                    "write database.postgres.port",
	"db_name":                    "write database.postgres.name",
	"db_user":                    "write database.postgres.user",
	"db_pass":                    "write spec.secrets.database_password",
	"db_ssl":                     "write database.postgres.ssl",
	"ip_prefixes":                "write prefixes.v4 and prefixes.v6",
	"private_key_path":           "Headscale needs noise.private_key_path only",
	"node_update_check_interval": "remove it: nodes get updates at once",
	"log_level":                  "write log.level",
	"dns_config":                 "write dns",
	"derp.server.stun.enabled":   "write derp.server.stun_listen_addr",
	"policy": "a policy is no part of the config: put it into a ConfigMap and name that in spec.files.policy, " +
		"or set policy.mode to database and send it to Headscale",
}

// UnknownConfigKeys returns a sentence that names the keys of the config, and the variables
// of the pod's environment that stand for keys, which the release of the spec does not read,
// and so ignores in silence; "" where there are none. Of a release that is newer than all
// known ones, or older, nothing can be said.
func (d *Draft) UnknownConfigKeys() string {
	headscale := d.headscale
	wanted, ok := parseRelease(headscale.Spec.Version)
	if !ok {
		return ""
	}
	release := slices.IndexFunc(knownReleases, wanted.EqualTo)
	if release < 0 {
		return ""
	}
	known := keysByRelease()[release]
	var sentences []string
	if paths := known.unknownIn(d.config, ""); len(paths) > 0 {
		sentences = append(sentences, fmt.Sprintf("Headscale %s does not know and ignores in spec.config: %s",
			headscale.Spec.Version, list(paths, known.describe)))
	}
	variables := unknownVariables(headscale, variablesByRelease()[release])
	if len(variables) > 0 {
		sentences = append(sentences, fmt.Sprintf("Headscale %s does not know and ignores in spec.pod.env: %s",
			headscale.Spec.Version, list(variables, func(name string) string { return name })))
	}
	return strings.Join(sentences, "; ")
}

// list describes the first of some names, and says how many more there are.
func list(names []string, describe func(string) string) string {
	var described []string
	for _, name := range names[:min(len(names), maxUnknownKeys)] {
		if len(name) > maxKeyName {
			described = append(described, redact.Line(name, maxKeyName))
			continue
		}
		described = append(described, redact.Line(describe(name), maxKeyName+maxAdvice))
	}
	text := strings.Join(described, ", ")
	if more := len(names) - maxUnknownKeys; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return text
}

// releaseKeys are the keys of one release, by their paths.
type releaseKeys map[string]configKey

// keysByRelease has the keys of each of knownReleases. It is made once: every reconcile asks.
var keysByRelease = sync.OnceValue(func() []releaseKeys {
	all := make([]releaseKeys, len(knownReleases))
	for release := range all {
		all[release] = releaseKeys{}
		for _, key := range configKeys {
			if key.first <= release && release <= key.last {
				all[release][key.path] = key
			}
		}
	}
	return all
})

// unknownIn returns the paths of the keys in a section which the release does not know.
// Headscale does not distinguish upper and lower case.
func (k releaseKeys) unknownIn(section map[string]any, path string) []string {
	var unknown []string
	for _, name := range slices.Sorted(maps.Keys(section)) {
		written := join(path, name)
		lower := strings.ToLower(written)
		value, isSection := section[name].(map[string]any)
		key, isKey := k[lower]
		switch {
		case isKey && (key.freeForm || !isSection), section[name] == nil:
		case isSection && k.isSection(lower):
			unknown = append(unknown, k.unknownIn(value, written)...)
		case isRemoved(lower):
			// It is refused, or Headscale itself reports it.
		default:
			unknown = append(unknown, written)
		}
	}
	return unknown
}

// join is the path of a key in a section.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// isSection reports whether the release has keys below a path.
func (k releaseKeys) isSection(path string) bool {
	for known := range k {
		if strings.HasPrefix(known, path+".") {
			return true
		}
	}
	return false
}

// isRemoved reports whether removedKeys has a key, or one below it.
func isRemoved(path string) bool {
	return slices.ContainsFunc(removedKeys, func(key removedKey) bool {
		return key.path == path || strings.HasPrefix(key.path, path+".")
	})
}

// describe names an unknown key, and what to write instead where that is known.
func (k releaseKeys) describe(written string) string {
	path := strings.ToLower(written)
	section, _, _ := strings.Cut(path, ".")
	nearest := k.nearest(path)
	_, isKey := k[path]
	first := firstRelease(path)
	switch {
	case isKey:
		return written + " (it must be a value, not a section)"
	case k.isSection(path):
		return written + " (it must be a section with keys of its own)"
	case successors[path] != "":
		return fmt.Sprintf("%s (%s)", written, successors[path])
	case first != nil:
		return fmt.Sprintf("%s (only other releases have it, first v%s)", written, first)
	case nearest != "":
		return fmt.Sprintf("%s (did you mean %s?)", written, nearest)
	case successors[section] != "":
		return fmt.Sprintf("%s (%s)", written, successors[section])
	default:
		return written
	}
}

// nearest is the key or section that an unknown one was probably meant to be, or "": one
// that differs in few letters, or the only one of its name in another section.
func (k releaseKeys) nearest(path string) string {
	last := path[strings.LastIndex(path, ".")+1:]
	best, distance := "", min(maxTypo, len(last)/3)+1
	elsewhere := map[string]bool{}
	for known := range k {
		for candidate := known; candidate != ""; candidate = candidate[:max(strings.LastIndex(candidate, "."), 0)] {
			// Strings whose lengths differ by more than the distance differ by more than it.
			if difference := len(path) - len(candidate); difference <= distance && -difference <= distance {
				if d := levenshtein.ComputeDistance(path, candidate); d < distance || d == distance && best != "" && candidate < best {
					best, distance = candidate, d
				}
			}
			if strings.HasSuffix("."+candidate, "."+last) {
				elsewhere[candidate] = true
			}
		}
	}
	if best == "" && len(elsewhere) == 1 {
		best = slices.Collect(maps.Keys(elsewhere))[0]
	}
	return best
}

// firstRelease is the first release that has a key, or a section with keys; nil where none
// has it.
func firstRelease(path string) *version.Version {
	for release, keys := range keysByRelease() {
		if _, isKey := keys[path]; isKey || keys.isSection(path) {
			return knownReleases[release]
		}
	}
	return nil
}

// environmentPrefix begins the variables that Headscale reads as config keys, and
// debugPrefix those that are none.
const (
	environmentPrefix = "HEADSCALE_"
	debugPrefix       = "HEADSCALE_DEBUG_"
)

// variablesByRelease has the variables that stand for a key of each of knownReleases, or for a
// removed one, which is refused, or which Headscale itself reports. It is made once.
var variablesByRelease = sync.OnceValue(func() []map[string]bool {
	all := make([]map[string]bool, len(knownReleases))
	for release, keys := range keysByRelease() {
		all[release] = map[string]bool{}
		for path := range keys {
			all[release][variableOf(path)] = true
		}
		for _, key := range removedKeys {
			all[release][variableOf(key.path)] = true
		}
	}
	return all
})

// unknownVariables returns the names of the variables in the pod's environment that look
// like a key of Headscale's config, and are none of a release with the known ones.
func unknownVariables(headscale *v1beta1.Headscale, known map[string]bool) []string {
	var unknown []string
	for _, variable := range headscale.Spec.Pod.Env {
		name := variable.Name
		if strings.HasPrefix(name, environmentPrefix) && !strings.HasPrefix(name, debugPrefix) && !known[name] {
			unknown = append(unknown, name)
		}
	}
	return unknown
}
