package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
)

// volumeGroup is the group of the volumes, as a platform gives it to a pod by fsGroup.
const volumeGroup = 1000690000

// asUser writes a program that makes its files readable for others and then runs a program
// as a user that no image knows, as OpenShift does: in the group 0, and in the volumes' group.
func asUser(dir, program string, user int, readable ...string) string {
	GinkgoHelper()
	raw, err := os.ReadFile(program)
	Expect(err).NotTo(HaveOccurred())
	copied := filepath.Join(dir, fmt.Sprintf("program-%d", user))
	Expect(os.WriteFile(copied, raw, 0o755)).To(Succeed())
	script := filepath.Join(dir, fmt.Sprintf("run-%d", user))
	text := fmt.Sprintf("#!/bin/sh\nchmod 0644 %s\nexec setpriv --reuid=%d --regid=0 --groups=%d -- %q \"$@\"\n", strings.Join(readable, " "), user, volumeGroup, copied)
	Expect(os.WriteFile(script, []byte(text), 0o755)).To(Succeed())
	return script
}

var _ = Describe("User ids that the platform gives out", func() {
	BeforeEach(func() {
		if _, err := exec.LookPath("setpriv"); err != nil || os.Getuid() != 0 {
			Skip("running programs as other users needs root and setpriv")
		}
	})

	It("keep neither Headscale from its data nor the API Key Manager from the socket", func(ctx SpecContext) {
		for version, program := range servers.Headscale {
			By(version)
			namespace := newNamespace(ctx)
			programs, err := os.MkdirTemp("", "hs-ids-")
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(os.RemoveAll, programs)
			Expect(os.Chmod(programs, 0o755)).To(Succeed())
			// As the kubelet makes a volume of a pod with an fsGroup.
			volume := filepath.Join(programs, "volume")
			Expect(os.Mkdir(volume, 0o700)).To(Succeed())
			Expect(os.Chown(volume, 0, volumeGroup)).To(Succeed())
			Expect(os.Chmod(volume, 0o770|os.ModeSetgid)).To(Succeed())

			hs, err := env.StartHeadscale(ctx, env.HeadscaleOptions{
				Binary: asUser(programs, program, volumeGroup+1, filepath.Join(volume, "config.yaml")),
				// As the operator fills it in.
				Config: map[string]any{"unix_socket_permission": "0770"},
				Guard:  guard, Dir: volume, Output: GinkgoWriter,
			})
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(hs.Stop)
			name := client.ObjectKey{Namespace: namespace, Name: "headscale"}
			Expect(env.GrantManager(ctx, admin, name)).To(Succeed())
			kubeconfig, err := plane.ServiceAccountKubeconfig(ctx, admin, name, programs)
			Expect(err).NotTo(HaveOccurred())
			wrapped := asUser(programs, binaries.Manager, volumeGroup+2, kubeconfig, filepath.Join(programs, "token"))
			command := env.ManagerCommand(wrapped, hs.SocketPath(), kubeconfig, namespace)
			command.Env = append(os.Environ(), command.Env...)
			command.Output, command.Guard = GinkgoWriter, guard
			manager, err := process.Start(command)
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(manager.Kill)
			Eventually(func() error {
				return admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1beta1.DefaultSecretName}, &corev1.Secret{})
			}).Should(Succeed())
		}
	})
})
