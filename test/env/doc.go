// Package env starts the real servers that integration tests and the demo talk
// to: a control plane (etcd and kube-apiserver) and Headscale. All of them listen
// on the loopback interface, keep what they write in a guarded directory, and end
// with the program that started them.
package env
