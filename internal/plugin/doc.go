// Package plugin is kubectl headscale: commands that show the state of Headscales, of their API keys,
// backups, users, pre-auth keys, nodes and policies, reveal or rotate a key, list events, and change
// nodes.
//
// It reads what the operator and the API Key Manager have written: the Headscale's status and the
// Secret's annotations. Only three commands read the key itself: key --reveal, and policy and nodes,
// which call Headscale with it. All others read only the Secret's metadata.
package plugin
