package resources

import (
	"fmt"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// InvalidError says that a spec, although it was admitted, cannot be turned into
// objects. Only the user can put it right.
type InvalidError struct {
	// Field is the path of the field to change, below spec.
	Field string
	// Message says what is wrong and how to put it right, as the rest of a sentence
	// that begins with the field.
	Message string
}

// Error is the field and the message as one sentence.
func (e *InvalidError) Error() string {
	return fmt.Sprintf("spec.%s %s", e.Field, e.Message)
}

// invalid makes an InvalidError with a formatted message.
func invalid(field, format string, arguments ...any) error {
	return &InvalidError{Field: field, Message: fmt.Sprintf(format, arguments...)}
}

// Reason is the reason of the condition that tells of it.
func (e *InvalidError) Reason() string { return v1beta1.ReasonInvalidConfig }
