// Package policy joins the parts of a tailnet's policy to one, and compares policies by meaning.
// It knows HuJSON, and of Headscale only which sections exist: what is in them is Headscale's to
// judge.
package policy
