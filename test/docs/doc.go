// Package docs runs the documentation: every block of every page in Markdown does what
// the page says, on a real API server, with the real operator, Headscale and API Key
// Manager.
//
// The pages are read in the order in which they stand; within a page, what one block
// left is there for the next: objects, files and shell variables. Each page begins
// anew. The language of a block says what it is:
//
//   - sh: commands, which must succeed. They run in an empty directory with links to
//     the clone's; those that begin with go run in the clone itself.
//   - console: commands after a $ and what they print. A timestamp, an age, the prefix
//     of a key and a … stand for any.
//   - yaml: manifests, which the API server must accept with strict validation. One
//     that begins with a comment that is a file name, such as # headscale.yaml, is kept
//     as that file. A part of a Headscale begins with spec:, or says where it belongs.
//   - text, mermaid: shown only. So is promql here; test/monitoring checks it.
//
// What cannot be so is said in an HTML comment right before the block, which no reader
// sees:
//
//	<!-- test: skip because REASON -->     is shown only
//	<!-- test: cluster because REASON -->  needs what no suite has: a registry to pull from,
//	                                       or kinds of objects that others install
//	<!-- test: e2e "WORDS" -->             is what the spec of test/e2e with these words does
//	<!-- test: ci -->                      make commands that .ci/run or a workflow runs
//	<!-- test: until "WORDS" -->           runs until it prints them, and is then interrupted
//	<!-- test: at spec.config -->          the block is a part of a Headscale, at that place
//	<!-- test: values of the chart -->     the block is values that the chart takes
//	<!-- test: file -->                    a manifest that is kept as a file, and would be refused
//
// A page that needs a Headscale from the start has this comment:
//
//	<!-- test: begin with a Headscale in the namespace vpn -->
//
// There are neither nodes nor controllers: the pods of StatefulSets run by test/podrunner,
// and of what kubectl asks a kubelet for, logs and `exec POD -- headscale` are answered. In
// the environment of the commands, HEADSCALE_URL is where the Headscale of the page can
// be reached.
package docs
