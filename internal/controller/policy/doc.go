// Package policy reconciles the HeadscalePolicies of a Headscale with its policy. One reconcile is
// about all of a Headscale. What is to be done is decided by a function of the objects and of what
// Headscale has (decide.go); each step is then one call.
package policy
