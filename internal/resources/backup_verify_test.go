package resources

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// TestGoldenVerification shows the Job that verifies a backup in a directory: with the claim that it
// reads, the files and the credentials, and nothing that it could write to but a directory of its own.
func TestGoldenVerification(t *testing.T) {
	g := NewWithT(t)
	headscale := headscaleOf(t, `
version: v0.29.3
config: {server_url: "http://headscale.example.com"}
persistent_volume_claim: {size: 3Gi}
backup:
  replica: {type: file, path: /backups/headscale}
  credentials: {name: backup-credentials}
  files: [{name: key, secret: {name: sftp, key: id}}]
pod:
  labels: {team: net}
  volumes: [{name: backups, persistentVolumeClaim: {claimName: backups}}, {name: other, emptyDir: {}}]
  volume_mounts: [{name: backups, mountPath: /backups}]
`)
	objects, err := Build(headscale, backedUp(v1beta1.BackupStatus{Incarnation: "0000-1111-1"}))
	g.Expect(err).NotTo(HaveOccurred())
	job, err := NewVerification(headscale, objects, Verification{Incarnation: "0000-1111-1", Node: "node-1", OperatorsImage: operatorOptions.ManagerImage, KeyPrefix: "AbCdEfGhIjKl"})
	g.Expect(err).NotTo(HaveOccurred())
	got, err := yaml.Marshal(job)
	g.Expect(err).NotTo(HaveOccurred())
	file := filepath.Join("testdata", "verify.yaml")
	if *update {
		g.Expect(os.WriteFile(file, got, 0o600)).To(Succeed())
	}
	want, err := os.ReadFile(file)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(got)).To(Equal(string(want)), "run with -update if this is as it should be")

	pod := job.Spec.Template
	g.Expect(*pod.Spec.AutomountServiceAccountToken).To(BeFalse())
	for _, m := range slices.Concat(pod.Spec.InitContainers[0].VolumeMounts, pod.Spec.Containers[0].VolumeMounts) {
		g.Expect(*m.Name).NotTo(BeElementOf(volumeData, volumeToken, volumeSocket), "it must not reach the database")
	}
	for _, selector := range []map[string]string{objects.Service.Spec.Selector, objects.MetricsService.Spec.Selector, objects.StatefulSet.Spec.Selector.MatchLabels} {
		matches := true
		for key, value := range selector {
			matches = matches && pod.Labels[key] == value
		}
		g.Expect(matches).To(BeFalse(), "the selector %v", selector)
	}
	g.Expect(InstanceOf(pod.Labels)).To(Equal("headscale"), "its end is noticed")
	g.Expect(IsChildName("headscale", *job.Name)).To(BeTrue())

	objects, err = Build(headscaleOf(t, shortSpec("")), operatorOptions)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = NewVerification(headscale, objects, Verification{Incarnation: "a"})
	g.Expect(err).To(MatchError(ContainSubstring("has no container litestream")))
}
