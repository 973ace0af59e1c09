package resources

import (
	"fmt"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// InvalidError says that a spec, although it was admitted, cannot be turned into
// objects. Only the user can fix it.
type InvalidError struct {
	// Field is the path of the field to change, below spec.
	Field string
	// Message says what is wrong and how to fix it, as the rest of a sentence
	// that begins with the field.
	Message string
}

// Error is the field and the message as one sentence.
func (e *InvalidError) Error() string {
	return fmt.Sprintf("spec.%s %s", e.Field, e.Message)
}

// Reason is the reason of the condition that reports the error.
func (*InvalidError) Reason() string { return v1beta1.ReasonInvalidConfig }

// invalid makes an InvalidError with a formatted message.
func invalid(field, format string, arguments ...any) error {
	return &InvalidError{Field: field, Message: fmt.Sprintf(format, arguments...)}
}
