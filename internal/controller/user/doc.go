// Package user reconciles HeadscaleUsers with the users of their Headscales. A pure function of the
// object, the snapshot of Headscale and the other HeadscaleUsers decides what to do (decide.go); each
// action is then one call.
package user
