// Package e2e has the end-to-end tests: what users do, on a real cluster with real
// pods. `make test-e2e` passes them on the cluster that KUBECONFIG names, which must
// be one to play with; `go test ./...` skips them.
//
// These environment variables matter:
//
//	E2E_LOAD_IMAGE          the command that loads an image's archive into the cluster; by
//	                        default `kind load docker-image`, which takes it from Docker
//	E2E_PREVIOUS            the revision whose operator is upgraded; by default HEAD~1
//	E2E_RESTART_KUBELET     the command that restarts the node's kubelet
//	E2E_RESTART_API_SERVER  the command that restarts the API server
//	E2E_ARTIFACTS           where a failed spec leaves logs, events and objects; by
//	                        default out/e2e
package e2e
