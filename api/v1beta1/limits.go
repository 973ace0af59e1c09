package v1beta1

import (
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// How large spec.config may be. A schema with preserved unknown fields cannot limit them, so
// the operator counts before it decodes: a decoded document takes up to a hundred times the
// memory of its text. Headscale's own example has 400 bytes in some 70 settings.
const (
	// MaxConfigSize is the longest config, in bytes of JSON.
	MaxConfigSize = 256 << 10
	// MaxConfigEntries is how many values a config may have in all its sections and lists.
	MaxConfigEntries = 10_000
	// MaxConfigDepth is how deep sections and lists may be nested.
	MaxConfigDepth = 32
)

// How large the rest of a Headscale may be. The schema limits each field; these limit all of
// them together, and the labels and annotations, of which the API server limits the length only.
const (
	// MaxSize is how many bytes of JSON a Headscale may have besides spec.config, its status
	// and what kubectl and the API server note on it.
	MaxSize = 128 << 10
	// MaxEntries is how many values these may be.
	MaxEntries = 4_000
)

// Shed drops of a Headscale what is larger than the limits, so that a cache need not keep it,
// and what nobody reads. Of one that is too large as a whole, what remains is what its status
// is about. Document and TooLarge then say what is wrong.
func (h *Headscale) Shed() {
	h.ManagedFields = nil
	delete(h.Annotations, corev1.LastAppliedConfigAnnotation)
	ShortenRotationRequest(h.Annotations)
	if err := h.Spec.Config.checkSize(); err != nil {
		h.Spec.Config = HeadscaleConfig{refusal: err.Error()}
	}
	if h.tooLarge = h.TooLarge(); h.tooLarge == "" {
		return
	}
	request, requested := h.Annotations[AnnotationRotateRequestedAt]
	h.Labels, h.Annotations, h.OwnerReferences, h.Finalizers = nil, nil, nil, nil
	if requested {
		h.Annotations = map[string]string{AnnotationRotateRequestedAt: request}
	}
	h.Spec = HeadscaleSpec{Version: h.Spec.Version, Replicas: h.Spec.Replicas, APIKey: h.Spec.APIKey, Config: h.Spec.Config}
}

// TooLarge says what is wrong with a Headscale that is larger than MaxSize or MaxEntries, as
// the rest of a sentence that begins with its size; "" where it is not.
func (h *Headscale) TooLarge() string {
	if h.tooLarge != "" {
		return h.tooLarge
	}
	counted := Headscale{ObjectMeta: h.ObjectMeta, Spec: h.Spec}
	counted.ManagedFields, counted.Spec.Config = nil, HeadscaleConfig{}
	text, err := json.Marshal(&counted)
	if err != nil {
		return fmt.Sprintf("cannot be written: %v", err)
	}
	entries, _ := countJSON(text)
	switch {
	case len(text) > MaxSize:
		return fmt.Sprintf("has %d bytes, and %d are allowed", len(text), MaxSize)
	case entries > MaxEntries:
		return fmt.Sprintf("has %d values, and %d are allowed", entries, MaxEntries)
	default:
		return ""
	}
}

// checkSize refuses a config that is larger than the limits. It reads the text once, and
// keeps nothing of it.
func (c *HeadscaleConfig) checkSize() error {
	if c.refusal != "" {
		return errors.New(c.refusal)
	}
	if len(c.document) > MaxConfigSize {
		return fmt.Errorf("it has %d bytes, and %d are allowed: make it shorter", len(c.document), MaxConfigSize)
	}
	entries, depth := countJSON(c.document)
	switch {
	case entries > MaxConfigEntries:
		return fmt.Errorf("it has %d values, and %d are allowed: make it shorter", entries, MaxConfigEntries)
	case depth > MaxConfigDepth:
		return fmt.Errorf("it has %d levels of sections and lists, and %d are allowed: nest it less", depth, MaxConfigDepth)
	default:
		return nil
	}
}

// countJSON counts the values in all objects and arrays of valid JSON, and how deep they are
// nested.
func countJSON(text []byte) (entries, depth int) {
	level, inString, escaped := 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = c == '\\', c != '"'
		case c == '"':
			inString = true
		case c == '{', c == '[':
			entries++
			level++
			depth = max(depth, level)
		case c == '}', c == ']':
			level--
		case c == ',':
			entries++
		}
	}
	return entries, depth
}
