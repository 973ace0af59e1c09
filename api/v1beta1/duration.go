package v1beta1

import (
	"fmt"
	"time"
)

// Duration is a positive length of time in hours, minutes and seconds, such as
// 2160h or 1h30m, kept as the user wrote it.
//
// +kubebuilder:validation:MaxLength=48
// +kubebuilder:validation:XValidation:rule="size(self) > 0 && self.matches('^([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,7}([.][0-9]{1,9})?m)?([0-9]{1,9}([.][0-9]{1,9})?s)?$') && duration(self) > duration('0s')",message="must be a positive duration in hours, minutes and seconds, such as 2160h or 1h30m; there is no unit for days: write 90 days as 2160h"
type Duration string

// Parse returns the length of time, or an error that says what is wrong with it.
// Admission lets only values pass for which it returns no error.
func (d Duration) Parse() (time.Duration, error) {
	length, err := time.ParseDuration(string(d))
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration in hours, minutes and seconds, such as 2160h or 1h30m (write 90 days as 2160h)", string(d))
	}
	if length <= 0 {
		return 0, fmt.Errorf("%q is not a positive duration", string(d))
	}
	return length, nil
}

// Delay is a length of time like Duration that may also be zero.
//
// +kubebuilder:validation:MaxLength=48
// +kubebuilder:validation:XValidation:rule="size(self) > 0 && self.matches('^([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,7}([.][0-9]{1,9})?m)?([0-9]{1,9}([.][0-9]{1,9})?s)?$') && duration(self) >= duration('0s')",message="must be a duration in hours, minutes and seconds, such as 0s, 30s or 1h30m"
type Delay string

// Parse returns the length of time, which is zero for an empty Delay, or an error
// that says what is wrong with it.
func (d Delay) Parse() (time.Duration, error) {
	if d == "" {
		return 0, nil
	}
	length, err := time.ParseDuration(string(d))
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration in hours, minutes and seconds, such as 30s or 1h30m", string(d))
	}
	if length < 0 {
		return 0, fmt.Errorf("%q is negative", string(d))
	}
	return length, nil
}
