package e2e_test

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// backupSpecs delete the volume of a Headscale with a backup, to which a Tailscale client is
// connected. The backup is on a claim of its own; the API Key Manager keeps the private keys.
func backupSpecs() {
	const namespace = "e2e-backup"
	It("has its node connected again, without anyone logging in, after the volume was deleted", func(ctx SpecContext) {
		newNamespaces(ctx, "restricted", namespace)
		apply(ctx, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: headscale-backup, namespace: %s}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`, namespace))
		hs := newServer(ctx, namespace, "headscale", newerHeadscale, `  backup: {replica: {type: file, path: /backup/headscale}}
  pod:
    volumes: [{name: replica, persistentVolumeClaim: {claimName: headscale-backup}}]
    volume_mounts: [{name: replica, mountPath: /backup}]
`)
		hs.awaitReady(ctx)
		laptop := registerNode(ctx, hs)
		Eventually(func() (string, error) {
			return kube(ctx, "get", "-n", namespace, "secret/headscale-identity", "-o", "jsonpath={.data}")
		}).Should(And(ContainSubstring("noise_private.key"), ContainSubstring("derp_server_private.key")))
		key, pod := hs.keepsItsPromises(ctx), hs.mustPod(ctx).UID
		incarnation := mustKube(ctx, "get", "-n", namespace, "headscale/headscale", "-o", "jsonpath={.status.backup.incarnation}")

		lost := time.Now()
		mustKube(ctx, "delete", "-n", namespace, "pvc/data-headscale-0", "--wait=false")
		mustKube(ctx, "delete", "-n", namespace, "pod/headscale-0")
		hs.awaitRestart(ctx, pod)
		AddReportEntry("Headscale is ready again after", time.Since(lost).Round(time.Second).String())
		Expect(mustKube(ctx, "get", "-n", namespace, "headscale/headscale", "-o", "jsonpath={.status.backup.restored_from}")).To(Equal(incarnation))
		Expect(hs.keepsItsPromises(ctx)).To(Equal(key))
		laptop.isRegistered(ctx)
		// Of an address that is http:// and a host name, as here, the client tries port 443 only when it was
		// cut off (docs/troubleshooting.md), so it is restarted, with the state that it has.
		laptop.reconnect(ctx)
		AddReportEntry("the node is connected again, without anyone logging in, after", time.Since(lost).Round(time.Second).String())
	})
}
