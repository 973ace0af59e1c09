package resources

import "strings"

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
