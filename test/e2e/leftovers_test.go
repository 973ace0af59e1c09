package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// operatorLease is the object by which operators agree on who works.
const operatorLease = "Lease " + operatorNamespace + " headscale-operator.infrado.cloud"

// kept lists what stays of a Headscale that was deleted, as docs/install.md says.
func kept(s *server) []string {
	claim := " " + s.namespace + " data-" + s.name + "-0"
	return []string{"PersistentVolumeClaim" + claim, "PersistentVolume" + claim}
}

// deleteVolume deletes the volume that stays of a Headscale.
func deleteVolume(ctx context.Context, s *server) {
	GinkgoHelper()
	mustKube(ctx, "delete", "-n", s.namespace, "--ignore-not-found", "--timeout=1m", "pvc/data-"+s.name+"-0")
}

// comeAndGo are kinds of objects that Kubernetes makes and removes by itself.
var comeAndGo = []string{"events", "events.events.k8s.io", "componentstatuses"}

// notLookedAt are namespaces in which others than the operator are at work: Kubernetes
// itself, and this suite.
var notLookedAt = []string{"kube-system", "kube-node-lease", "kube-public", toolsNamespace, privilegedNamespace}

// list lists all objects of all kinds in the cluster as "Kind namespace name", a volume
// under the name of its claim.
func list(ctx context.Context) ([]string, error) {
	kinds, err := kube(ctx, "api-resources", "--verbs=list", "-o", "name")
	if err != nil {
		return nil, err
	}
	wanted := slices.DeleteFunc(strings.Fields(kinds), func(kind string) bool { return slices.Contains(comeAndGo, kind) })
	printed, err := kube(ctx, "get", strings.Join(wanted, ","), "-A", "--no-headers", "-o",
		"custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name,CNS:.spec.claimRef.namespace,CN:.spec.claimRef.name")
	if err != nil {
		return nil, err
	}
	var objects []string
	for line := range strings.Lines(printed) {
		fields := strings.Fields(line)
		if len(fields) != 5 {
			return nil, fmt.Errorf("not the columns that were asked for: %q", line)
		}
		if fields[0] == "PersistentVolume" {
			fields[1], fields[2] = fields[3], fields[4]
		}
		if !slices.Contains(notLookedAt, fields[1]) {
			objects = append(objects, strings.Join(fields[:3], " "))
		}
	}
	return objects, nil
}

// everything lists all objects, as list does.
func everything(ctx context.Context) []string {
	GinkgoHelper()
	var objects []string
	Eventually(func() (err error) {
		objects, err = list(ctx)
		return err
	}).Should(Succeed())
	return objects
}

// expectOnlyKept waits until nothing is in the cluster but what was there before and
// what is said to stay.
func expectOnlyKept(ctx context.Context, before []string, stays ...string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		now, err := list(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(slices.DeleteFunc(now, func(object string) bool { return slices.Contains(before, object) })).To(ConsistOf(stays))
	}).Should(Succeed())
}
