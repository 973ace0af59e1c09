// Package policy joins the parts of a tailnet's policy, and compares policies by meaning. It parses
// HuJSON, and knows which sections a policy of Headscale has; Headscale itself validates their content.
package policy
