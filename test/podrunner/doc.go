// Package podrunner runs the pod of a StatefulSet as local processes, for tests
// and demos on a control plane that has neither nodes nor controllers.
//
// # What it emulates
//
// Of the StatefulSet controller: one pod for replicas above 0, none for 0; the
// pod is replaced when the template changes and stopped when the StatefulSet is
// deleted; the status and the Pod object follow.
//
// Of the Job controller: the pod of the Job <StatefulSet>-preflight, once, while there is that
// Job; its own status stays empty.
//
// Of the kubelet: containers run exactly what the template says (the image, by a
// map to a program; command and args; env with values, the namespace, and Secret
// references). Volumes are directories: emptyDir (new for every pod),
// persistentVolumeClaim and volume claim templates (kept), configMap and projected
// ones, among them a token of the pod's ServiceAccount, which lives for a day. A
// container that ends is started again after a pause, and the Pod object has its
// last words. An image without a program cannot be pulled. The pod is ready when all containers run and those with a readiness
// probe (httpGet) pass it. A pod is stopped with SIGTERM, and with SIGKILL after
// its grace period. Init containers run first, and those that are restarted always end last.
//
// # How a process differs from a container
//
// It has no mount namespace: every path below a mount path is rewritten to the
// volume's directory, in args, in env values and in the text of mounted files. It
// has no network namespace: Headscale's listen addresses are moved to free
// addresses of the loopback interface by the environment variables that override
// its config, and so is what an argument such as --metrics-bind-address=:9101
// says. A container that has a ServiceAccount token gets a kubeconfig in
// KUBECONFIG that uses it, because the place where a client in a pod would look
// cannot be redirected.
//
// # What it does not emulate
//
// PersistentVolumeClaim objects, more than one replica, working directories, and other
// volumes and references (all refused), $(VAR) in values, what is optional (it must be there, but in a Secret's volume), users, capabilities and read-only file
// systems, resource limits, startup and liveness probes, lifecycle hooks, the
// update of mounted ConfigMaps and Secrets in a running pod, and the network:
// Services lead nowhere.
package podrunner
