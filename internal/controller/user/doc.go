// Package user reconciles HeadscaleUsers with the users of their Headscales. What is to be done
// is decided by a function of the object, of what Headscale has and of what other HeadscaleUsers
// want (decide.go); each step is then one call.
package user
