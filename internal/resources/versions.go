package resources

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// UpgradeError says that Headscale cannot go from one version to another in one
// step. Only the user can fix it.
type UpgradeError struct {
	// From ran last with the present database, and To is what the spec asks for.
	From, To string
	// Advice is what to do instead, as a sentence without a capital letter.
	Advice string
}

// Error is a sentence that names both versions and what to do.
func (e *UpgradeError) Error() string {
	return fmt.Sprintf("spec.version cannot go from %s to %s: %s. The pod is left as it is", e.From, e.To, e.Advice)
}

// Reason is the reason of the condition that reports the error.
func (*UpgradeError) Reason() string { return v1beta1.ReasonUpgradeRefused }

// CheckUpgrade returns an *UpgradeError where Headscale would not start with the
// database of the other version, or where that was never tried: its database is
// migrated from one minor version to the next, and never back. There is nothing to
// check where either version is empty or is no version.
func CheckUpgrade(from, to string) error {
	was, ok := parseRelease(from)
	wanted, okay := parseRelease(to)
	if !ok || !okay {
		return nil
	}
	refuse := func(format string, arguments ...any) error {
		return &UpgradeError{From: from, To: to, Advice: fmt.Sprintf(format, arguments...)}
	}
	switch {
	case wanted.LessThan(was):
		return refuse("its database cannot go back to an older version; write %s again, or restore a backup of the data to a Headscale with another name", from)
	case wanted.Major() != was.Major():
		return refuse("a new major version is a new database; create a Headscale with another name")
	case wanted.Minor() > was.Minor()+1:
		return refuse("minor versions must not be skipped, because each migrates the database; go to the latest v%d.%d first, wait until it is ready, and go on from there", was.Major(), was.Minor()+1)
	default:
		return nil
	}
}

// CheckRollback returns an *UpgradeError where a newer minor version than the wanted one was
// started with the present database. Whether it became ready does not matter: it migrates the
// database before that. There is nothing to check where either is empty or is no version.
func CheckRollback(started, to string) error {
	was, ok := parseRelease(started)
	wanted, okay := parseRelease(to)
	if !ok || !okay || !wanted.LessThan(was) {
		return nil
	}
	return &UpgradeError{From: started, To: to, Advice: fmt.Sprintf(
		"%[1]s was started and may have migrated the database, though it has not become ready; "+
			"write %[1]s again and fix what keeps it from starting, or restore a backup of the data to a Headscale with another name", started)}
}

// maxMajor is the highest major version of a release. A tag that begins with a larger
// number begins with a date.
const maxMajor = 9999

// parseRelease reads the minor version of a version, with or without a v and a suffix.
// Within one, Headscale takes every patch for any other.
func parseRelease(text string) (*version.Version, bool) {
	parsed, err := version.ParseGeneric(text)
	if err != nil || len(parsed.Components()) < 3 || parsed.Major() > maxMajor {
		return nil, false
	}
	return version.MajorMinor(parsed.Major(), parsed.Minor()), true
}

// OtherRelease is the version that a Headscale reports of itself, in the form of spec.version,
// where it is of another minor release than the one that was declared; "" where it is of the
// same, or one of them is no release.
func OtherRelease(told, declared string) string {
	is, known := parseRelease(told)
	should, declaredOne := parseRelease(declared)
	if !known || !declaredOne || is.EqualTo(should) {
		return ""
	}
	return "v" + version.MustParseGeneric(told).String()
}

// removedKey is a key of config.yaml that Headscale refuses to start with.
type removedKey struct {
	// since is the first release that refuses it; nil: every supported one.
	since *version.Version
	path  string
	// unless is a key in whose presence Headscale ignores this one, or "".
	unless string
	advice string
}

// removedKeys are those of validateServerConfig in hscontrol/types/config.go of
// Headscale v0.26.1, v0.27.1, v0.28.0 and v0.29.3.
var removedKeys = []removedKey{
	{path: "acl_policy_path", unless: "policy.path", advice: "write policy.path instead"},
	{path: "dns_config.magic_dns", unless: "dns.magic_dns", advice: "write dns.magic_dns instead"},
	{path: "dns_config.base_domain", unless: "dns.base_domain", advice: "write dns.base_domain instead"},
	{path: "dns_config.override_local_dns", unless: "dns.override_local_dns", advice: "write dns.override_local_dns instead"},
	{path: "dns_config.nameservers", unless: "dns.nameservers.global", advice: "write dns.nameservers.global instead"},
	{path: "dns_config.restricted_nameservers", unless: "dns.nameservers.split", advice: "write dns.nameservers.split instead"},
	{path: "dns_config.domains", unless: "dns.search_domains", advice: "write dns.search_domains instead"},
	{path: "dns_config.extra_records", unless: "dns.extra_records", advice: "write dns.extra_records instead"},
	{path: "dns.use_username_in_magic_dns", advice: "remove it: names of nodes no longer hold the name of the user"},
	{path: "dns_config.use_username_in_magic_dns", advice: "remove it: names of nodes no longer hold the name of the user"},
	{path: "oidc.strip_email_domain", advice: "remove it: users are known by what the identity provider calls them"},
	{path: "oidc.map_legacy_users", advice: "remove it: users are known by what the identity provider calls them"},
	{since: version.MajorMinor(0, 29), path: "randomize_client_port", advice: "remove it, and write randomizeClientPort in the policy if you want it"},
	{since: version.MajorMinor(0, 29), path: "oidc.expiry", advice: "write node.expiry instead"},
}

// CheckConfigKeys returns an *InvalidError for a key of the config that the version
// of the spec has removed, so that Headscale would not start with it.
func (d *Draft) CheckConfigKeys() error {
	wanted, ok := parseRelease(d.headscale.Spec.Version)
	if !ok {
		return nil
	}
	for _, key := range removedKeys {
		if key.since != nil && wanted.LessThan(key.since) {
			continue
		}
		if err := key.check(d.config, d.headscale); err != nil {
			return err
		}
	}
	return nil
}

// check refuses the key in the config and in the environment, unless its successor is
// there.
func (k removedKey) check(config document, headscale *v1beta1.Headscale) error {
	_, written, err := config.lookup(k.path)
	if err != nil || !written && !inEnvironment(headscale, k.path) {
		return err
	}
	replaced, err := k.replaced(config, headscale)
	switch {
	case err != nil || replaced:
		return err
	case written:
		return invalid("config."+k.path, "is no longer a key of Headscale %s, which would not start with it: %s", headscale.Spec.Version, k.advice)
	default:
		return invalid("pod.env", "has %s, the variable of %s, which is no longer a key of Headscale %s, so that it would not start: %s", variableOf(k.path), k.path, headscale.Spec.Version, k.advice)
	}
}

// inEnvironment reports whether a setting is made by a variable that the user adds.
func inEnvironment(headscale *v1beta1.Headscale, setting string) bool {
	return slices.ContainsFunc(headscale.Spec.Pod.Env, func(variable corev1.EnvVar) bool { return variable.Name == variableOf(setting) })
}

// replaced reports whether Headscale ignores the key because its successor is there.
func (k removedKey) replaced(config document, headscale *v1beta1.Headscale) (bool, error) {
	if k.unless == "" {
		return false, nil
	}
	_, written, err := config.lookup(k.unless)
	return written || inEnvironment(headscale, k.unless), err
}
