// Package e2e has the end-to-end tests: what users do, on a real cluster with real
// pods. `make test-e2e` passes them on the cluster that KUBECONFIG names, which must
// be one to play with; `go test ./...` skips them.
//
// These environment variables matter:
//
//	E2E_LOAD_IMAGE          the command that loads an image's archive into the cluster; by
//	                        default `kind load docker-image`, which takes it from Docker
//	E2E_PREVIOUS            the revision that is upgraded: its images, its chart and its
//	                        install.yaml; by default HEAD~1
//	E2E_RESTART_KUBELET     the command that restarts the node's kubelet
//	E2E_RESTART_API_SERVER  the command that restarts the API server
//	E2E_PULLS               set where the cluster can pull images: `helm test` then uses the
//	                        image that the chart names, and pods of busybox that image
//	E2E_ARTIFACTS           where a failure leaves logs, events and objects; by
//	                        default out/e2e, which is emptied at the start
package e2e
