// Package plugin is kubectl headscale: commands that show how a Headscale and its
// API key are, reveal the key, have it replaced, list events, show the objects that exist within
// a Headscale, and its backup, compare the policy in force with the HeadscalePolicies, and show and
// change nodes.
//
// It reads what the operator and the API Key Manager have written: the Headscale's
// status and the Secret's annotations. The key itself is asked of the API server by
// three commands alone: key --reveal, and policy and nodes, which ask Headscale with it. All others
// read the Secret's metadata, which does not have it.
package plugin
