package resources

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

func TestIdentity(t *testing.T) {
	const noise, relay = "noise_private.key", "derp_server_private.key"
	unmanaged := `}, api_key: {auto_manage: false`
	for name, test := range map[string]struct {
		spec     string
		keys     []string
		files    []string
		warnings int
	}{
		"no backup":                  {shortSpec(""), nil, nil, 0},
		"both keys":                  {withBackup("", ""), []string{noise, relay}, []string{noise + "=" + noise, relay + "=" + relay}, 0},
		"no relay":                   {withBackup(`, derp: {urls: ["https://derp.example.com/map"]}`, ""), []string{noise}, []string{noise + "=" + noise}, 0},
		"other paths on the volume":  {withBackup(`, noise: {private_key_path: /var/lib/headscale/keys/noise}`, ""), []string{noise, relay}, []string{noise + "=keys/noise", relay + "=" + relay}, 0},
		"a path elsewhere":           {withBackup(`, noise: {private_key_path: /mnt/noise}`, ""), []string{relay}, []string{relay + "=" + relay}, 0},
		"a path beside the volume":   {withBackup(`, noise: {private_key_path: /var/lib/headscale/../noise}`, ""), []string{relay}, []string{relay + "=" + relay}, 0},
		"a Secret of the user's":     {withBackup("", `}, secrets: {noise_private_key: {name: mine, key: noise}`), []string{relay}, []string{relay + "=" + relay}, 0},
		"Secrets of the user's":      {withBackup("", `}, secrets: {noise_private_key: {name: mine, key: noise}, derp_private_key: {name: mine, key: derp}`), nil, nil, 0},
		"no manager":                 {withBackup("", unmanaged), nil, nil, 1},
		"no manager and no key":      {withBackup("", `}, secrets: {noise_private_key: {name: mine, key: noise}, derp_private_key: {name: mine, key: derp}`+unmanaged), nil, nil, 0},
		"another database directory": {withBackup(`, database: {sqlite: {path: /data/db.sqlite}}`, ""), []string{noise, relay}, []string{noise + "=" + noise, relay + "=" + relay}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			objects, err := Build(headscaleOf(t, test.spec), backedUp(v1beta1.BackupStatus{Incarnation: "a-1"}))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(objects.IdentityKeys).To(Equal(test.keys))
			g.Expect(objects.Warnings).To(HaveLen(test.warnings))
			var files []string
			for _, container := range objects.StatefulSet.Spec.Template.Spec.InitContainers {
				if *container.Name == ContainerIdentity {
					files = container.Args[4:]
				}
			}
			g.Expect(files).To(Equal(test.files))
			if objects.Role != nil {
				rules := 2
				if len(test.keys) > 0 {
					rules = 3
				}
				g.Expect(objects.Role.Rules).To(HaveLen(rules), "rights for what is kept")
			}
		})
	}
}

func TestOnlyTheIdentityContainerHasTheSecretAndNoToken(t *testing.T) {
	g := NewWithT(t)
	objects, err := Build(headscaleOf(t, withBackup("", "")), backedUp(v1beta1.BackupStatus{Incarnation: "a-1"}))
	g.Expect(err).NotTo(HaveOccurred())
	mounts := func(c *corev1ac.ContainerApplyConfiguration) (names []string) {
		for _, m := range c.VolumeMounts {
			names = append(names, *m.Name)
		}
		return names
	}
	pod := objects.StatefulSet.Spec.Template.Spec
	var order []string
	for i := range pod.InitContainers {
		order = append(order, *pod.InitContainers[i].Name)
		if *pod.InitContainers[i].Name == ContainerIdentity {
			g.Expect(mounts(&pod.InitContainers[i])).To(ConsistOf(volumeData, volumeIdentity, volumeIdentitySecret))
			continue
		}
		g.Expect(mounts(&pod.InitContainers[i])).NotTo(ContainElement(HavePrefix("identity")))
	}
	g.Expect(order).To(Equal([]string{ContainerVolume, ContainerRestore, ContainerIdentity, ContainerBackup}), "before Headscale, and after the database")
	g.Expect(mounts(&pod.Containers[0])).NotTo(ContainElement(HavePrefix("identity")))
	g.Expect(mounts(&pod.Containers[1])).To(ConsistOf(volumeSocket, volumeToken, volumeIdentity), "the API Key Manager does not read the data volume")
}

// identityParts are the parts of a pod that are there for private keys: the arguments of its
// containers, and its volumes.
func identityParts(objects *Objects) (parts []string) {
	pod := objects.StatefulSet.Spec.Template.Spec
	for _, container := range append(pod.InitContainers, pod.Containers...) {
		if *container.Name == ContainerIdentity {
			parts = append(parts, ContainerIdentity)
		}
		for _, arg := range container.Args {
			if strings.HasPrefix(arg, "--identity") {
				parts = append(parts, arg)
			}
		}
		for _, m := range container.VolumeMounts {
			if strings.HasPrefix(*m.Name, volumeIdentity) {
				parts = append(parts, *container.Name+" mounts "+*m.Name)
			}
		}
	}
	for _, volume := range pod.Volumes {
		if strings.HasPrefix(*volume.Name, volumeIdentity) {
			parts = append(parts, "volume "+*volume.Name)
		}
	}
	return parts
}

func TestIdentityOfSomebodyElse(t *testing.T) {
	g := NewWithT(t)
	options := backedUp(v1beta1.BackupStatus{Incarnation: "a-1"})
	mine, err := Build(headscaleOf(t, withBackup("", "")), options)
	g.Expect(err).NotTo(HaveOccurred())
	mounted := []string{ContainerIdentity + " mounts " + volumeIdentitySecret, "volume " + volumeIdentitySecret}
	g.Expect(identityParts(mine)).To(ContainElements(mounted))
	options.IdentityIsForeign = true
	theirs, err := Build(headscaleOf(t, withBackup("", "")), options)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(theirs.Role.Rules).To(HaveLen(2))
	g.Expect(identityParts(theirs)).NotTo(ContainElements(mounted[0]), "its keys are not used")
	g.Expect(identityParts(theirs)).NotTo(ContainElements(mounted[1]))
	g.Expect(identityParts(theirs)).To(HaveLen(len(identityParts(mine))-len(mounted)), "all else is the same")

	_, err = Build(headscaleOf(t, withBackup("", `}, api_key: {secret_name: headscale-identity`)), options)
	g.Expect(err).To(MatchError(ContainSubstring("spec.api_key.secret_name must not be headscale-identity where spec.backup is set")))
}

func TestIdentityWithAManagerThatIsPinned(t *testing.T) {
	for name, test := range map[string]struct {
		image    string
		kept     bool
		warnings int
	}{
		"none":               {"", true, 0},
		"the operator's own": {operatorOptions.ManagerImage, true, 0},
		"another":            {"registry.example/apikey-manager:v0.0.1", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			spec := withBackup("", `}, api_key: {manager_image: "`+test.image+`"`)
			objects, err := Build(headscaleOf(t, spec), backedUp(v1beta1.BackupStatus{Incarnation: "a-1"}))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(objects.Warnings).To(HaveLen(test.warnings))
			if test.kept {
				g.Expect(identityParts(objects)).NotTo(BeEmpty())
				return
			}
			g.Expect(objects.Warnings).To(ConsistOf(ContainSubstring("spec.api_key.manager_image names another image than the operator's")))
			g.Expect(identityParts(objects)).To(BeEmpty(), "an older API Key Manager would end with an error, and Headscale not start")
			g.Expect(objects.IdentityKeys).To(BeEmpty())
			g.Expect(objects.Role.Rules).To(HaveLen(2))
		})
	}
}
