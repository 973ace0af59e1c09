package resources

import (
	"strings"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// checkImage refuses an image whose tag names another release than the spec: by the
// spec's it is decided which way an upgrade may go, and which keys the config may have.
func checkImage(spec *v1beta1.HeadscaleSpec) error {
	image, _, _ := strings.Cut(spec.Image, "@")
	_, tag, tagged := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	tagged = tagged && tag != ""
	is, ok := parseRelease(tag)
	wanted, okay := parseRelease(spec.Version)
	if !tagged || !ok || !okay || is.EqualTo(wanted) {
		return nil
	}
	return invalid("image", "has the tag %s, and spec.version is %s: set it to the release of the image, because upgrades are checked against it", tag, spec.Version)
}

// imageReference adds the tag to an image, unless the image has a tag or a digest
// of its own.
func imageReference(image, tag string) string {
	if strings.Contains(image, "@") {
		return image
	}
	// A colon before the last slash belongs to the port of a registry.
	if strings.Contains(image[strings.LastIndex(image, "/")+1:], ":") {
		return image
	}
	return image + ":" + tag
}
