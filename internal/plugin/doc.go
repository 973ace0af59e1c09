// Package plugin is kubectl headscale: commands that show how a Headscale and its
// API key are, reveal the key, have it replaced, and list events.
//
// It reads what the operator and the API Key Manager have written: the Headscale's
// status and the Secret's annotations. The key itself is asked of the API server by
// one command alone, key --reveal; all others read the Secret's metadata, which does
// not have it.
package plugin
