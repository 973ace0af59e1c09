package preauthkey

import (
	"fmt"
	"slices"
	"strings"

	"infrado.cloud/headscale-operator/api/v1beta1"
	tailnetpolicy "infrado.cloud/headscale-operator/internal/policy"
)

// unknownTags says which tags of a key the policy in force does not know; "": it knows all, or
// there is none that can be read.
func unknownTags(tags []string, policyText string) string {
	if len(tags) == 0 {
		return ""
	}
	known, readable := tagOwners(policyText)
	if !readable {
		return ""
	}
	var unknown []string
	for _, tag := range tags {
		if !slices.ContainsFunc(known, func(owned string) bool { return strings.EqualFold(owned, tag) }) {
			unknown = append(unknown, tag)
		}
	}
	if len(unknown) == 0 {
		return ""
	}
	return fmt.Sprintf("%sthe policy of Headscale does not know %s: add it to tagOwners", v1beta1.WarningsIntro, strings.Join(unknown, ", "))
}

// tagOwners are the tags that a policy knows. An empty policy, which allows everything, knows all.
func tagOwners(policyText string) (tags []string, readable bool) {
	document, err := tailnetpolicy.Parse(policyText)
	if err != nil {
		return nil, false
	}
	return document.KeysOf("tagOwners"), true
}
