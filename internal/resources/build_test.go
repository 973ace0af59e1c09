package resources

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// operatorOptions are the operator's settings in these tests.
var operatorOptions = Options{ManagerImage: "registry.example/apikey-manager:test"}

// headscaleOf is a Headscale whose spec is the text, as it comes from the API server.
func headscaleOf(t testing.TB, spec string) *v1beta1.Headscale {
	t.Helper()
	headscale := &v1beta1.Headscale{}
	headscale.Name, headscale.Namespace, headscale.UID = "headscale", "test", types.UID("0000-1111")
	if err := yaml.UnmarshalStrict([]byte(spec), &headscale.Spec); err != nil {
		t.Fatal(err)
	}
	return headscale
}

// shortSpec is a spec with what every Headscale needs, and more of its config.
func shortSpec(config string) string {
	return `{version: v0.29.3, config: {server_url: "http://headscale.example.com"` + config + `}}`
}

// specWithVolumes is a spec with some volumes.
func specWithVolumes(volumes string) string {
	return strings.TrimSuffix(shortSpec(""), "}") + ", pod: {volumes: [" + volumes + "]}}"
}

// configOf is the config.yaml that is built of a config, as a map.
func configOf(g Gomega, t testing.TB, config string) map[string]any {
	t.Helper()
	objects, err := Build(headscaleOf(t, shortSpec(config)), operatorOptions)
	g.Expect(err).NotTo(HaveOccurred())
	built := map[string]any{}
	g.Expect(yaml.UnmarshalStrict([]byte(objects.ConfigMap.Data["config.yaml"]), &built)).To(Succeed())
	return built
}

func TestBuildIsAFunctionOfItsArguments(t *testing.T) {
	g := NewWithT(t)
	spec := shortSpec(", dns: {nameservers: {global: [1.1.1.1], split: {b.example: [2.2.2.2], a.example: [3.3.3.3]}}}")
	headscale := headscaleOf(t, spec)
	first, err := Build(headscale, operatorOptions)
	g.Expect(err).NotTo(HaveOccurred())
	for range 20 {
		g.Expect(Build(headscale, operatorOptions)).To(Equal(first))
	}
	g.Expect(headscale).To(Equal(headscaleOf(t, spec)), "the resource must not be changed")
}

func TestBuildWithoutManager(t *testing.T) {
	g := NewWithT(t)
	headscale := headscaleOf(t, shortSpec(""))
	no := false
	headscale.Spec.APIKey.AutoManage = &no
	objects, err := Build(headscale, Options{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(objects.Role).To(BeNil())
	g.Expect(objects.RoleBinding).To(BeNil())
	pod := objects.StatefulSet.Spec.Template.Spec
	g.Expect(pod.Containers).To(HaveExactElements(HaveField("Name", HaveValue(Equal("headscale")))))
	g.Expect(pod.Volumes).NotTo(ContainElement(HaveField("Name", HaveValue(Equal(volumeToken)))))
	g.Expect(pod.Volumes).To(ContainElement(HaveField("Name", HaveValue(Equal(volumeSocket)))), "Headscale does not start without a directory for its socket")
	g.Expect(objects.ServiceAccount).NotTo(BeNil(), "the pod must not run as the namespace's default account")
}

func TestBuildRefuses(t *testing.T) {
	for name, test := range map[string]struct{ config, sentence string }{
		"the socket in the data directory":    {", unix_socket: /var/lib/headscale/headscale.sock", "spec.config.unix_socket must be outside the data directory /var/lib/headscale"},
		"the socket below the data directory": {", unix_socket: /var/lib/headscale/run/headscale.sock", "spec.config.unix_socket must be outside the data directory"},
		"the data below the socket directory": {", unix_socket: /data/s.sock, database: {sqlite: {path: /data/db/db.sqlite}}", "spec.config.unix_socket must be outside the data directory /data/db"},
		"the socket in the config directory":  {", unix_socket: /etc/headscale/headscale.sock", "spec.config.unix_socket must not be in /etc/headscale"},
		"the socket with the token":           {", unix_socket: /var/run/secrets/kubernetes.io/serviceaccount/s", "spec.config.unix_socket must not be in /var/run/secrets/kubernetes.io/serviceaccount"},
		"the socket above the token":          {", unix_socket: /var/run/secrets/s.sock", "because another volume is mounted at /var/run/secrets/kubernetes.io/serviceaccount"},
		"the socket over /var/run":            {", unix_socket: /var/run/headscale.sock", "spec.config.unix_socket must not be in /var/run, which a volume would hide"},
		"the socket over /tmp":                {", unix_socket: /tmp/headscale.sock", "spec.config.unix_socket must not be in /tmp"},
		"the socket among the programs":       {", unix_socket: /usr/bin/headscale.sock", "spec.config.unix_socket must not be in /usr/bin"},
		"the data over /etc":                  {", database: {sqlite: {path: /etc/db.sqlite}}", "spec.config.database.sqlite.path must not be in /etc"},
		"the data in the config directory":    {", database: {sqlite: {path: /etc/headscale/db.sqlite}}", "spec.config.database.sqlite.path must not be in /etc/headscale"},
		"one port twice":                      {`, metrics_listen_addr: ":8080"`, "spec.config.metrics_listen_addr has the port 8080, which spec.config.listen_addr has too"},
		"one port twice, on loopback":         {`, metrics_listen_addr: "127.0.0.1:50443"`, "spec.config.metrics_listen_addr has the port 50443, which spec.config.grpc_listen_addr has too"},
		"a loopback address in full":          {`, listen_addr: "[0:0:0:0:0:0:0:1]:8080"`, "spec.config.listen_addr must not be a loopback address"},
		"a key in capitals":                   {`, Unix_Socket: /a/b`, "spec.config.Unix_Socket must be written in lower case: unix_socket"},
		"a section in capitals":               {`, DNS: {}`, "spec.config.DNS must be written in lower case: dns"},
		"a nested key in capitals":            {`, derp: {server: {Private_Key_Path: x}}`, "spec.config.derp.server.Private_Key_Path must be written in lower case"},
		"server_url twice":                    {`, SERVER_URL: x`, "spec.config.SERVER_URL must be written in lower case"},
		"a section that is a string":          {`, dns: x`, "spec.config.dns must be a section with keys of its own"},
		"a section that is a list":            {`, prefixes: [100.64.0.0/10]`, "spec.config.prefixes must be a section"},
		"a dotted key":                        {`, dns.magic_dns: true`, `spec.config must not have the key "dns.magic_dns": write its parts as nested sections`},
		"a mode without quotes":               {`, unix_socket_permission: 0770`, "spec.config.unix_socket_permission must be a string in quotes"},
		"PostgreSQL that is not chosen":       {`, database: {postgres: {host: db}}`, "spec.config.database.type must be set where database.postgres is"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Build(headscaleOf(t, shortSpec(test.config)), operatorOptions)
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(test.sentence)))
			NewWithT(t).Expect(err).To(BeAssignableToTypeOf(&InvalidError{}))
		})
	}
}

func TestBuildRefusesABadKey(t *testing.T) {
	headscale := headscaleOf(t, shortSpec(""))
	_, err := Build(headscale, Options{})
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring("spec.api_key.manager_image must be set")))
	headscale.Spec.APIKey.Expiration = "90d"
	_, err = Build(headscale, operatorOptions)
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring(`spec.api_key cannot be used: api_key.expiration: "90d"`)))
}

func TestSocketDirectoriesThatAreFine(t *testing.T) {
	for _, socket := range []string{"/run/hs/s", "/tmp/hs/s", "/etc/hs/s", "/var/lib/headscale-run/s", "/var/run/headscale/deep/s", "/var/lib/headscal/s", "//run//hs/s"} {
		g := NewWithT(t)
		objects, err := Build(headscaleOf(t, shortSpec(", unix_socket: "+socket)), operatorOptions)
		g.Expect(err).NotTo(HaveOccurred(), socket)
		for _, container := range objects.StatefulSet.Spec.Template.Spec.Containers {
			g.Expect(container.VolumeMounts).To(ContainElement(HaveField("Name", HaveValue(Equal(volumeSocket)))))
		}
	}
}

func TestTheManagerIsToldWhoseTheSecretIs(t *testing.T) {
	g := NewWithT(t)
	headscale := headscaleOf(t, shortSpec(""))
	headscale.Name, headscale.UID = "hs-2", types.UID("6f9619ff-8b86-4d01-b42d-00cf4fc964ff")
	objects, err := Build(headscale, operatorOptions)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(objects.StatefulSet.Spec.Template.Spec.Containers[1].Args).To(ContainElement("--owner=hs-2/6f9619ff-8b86-4d01-b42d-00cf4fc964ff"))
}

// TestEveryEmptyDirHasALimit looks for a volume with which a pod could fill its node's disk.
func TestEveryEmptyDirHasALimit(t *testing.T) {
	g := NewWithT(t)
	for spec, emptyDirs := range map[string]int{
		shortSpec(""): 2, withReferences: 2, withAdditions: 3,
		specWithVolumes("{name: a, emptyDir: {}}, {name: b, emptyDir: {medium: Memory}}"): 4,
	} {
		objects, err := Build(headscaleOf(t, spec), operatorOptions)
		g.Expect(err).NotTo(HaveOccurred())
		found := 0
		for _, volume := range objects.StatefulSet.Spec.Template.Spec.Volumes {
			if volume.EmptyDir != nil {
				found++
				g.Expect(volume.EmptyDir.SizeLimit).NotTo(BeNil(), *volume.Name)
				g.Expect(volume.EmptyDir.SizeLimit.Sign()).To(Equal(1), *volume.Name)
			}
		}
		g.Expect(found).To(Equal(emptyDirs))
	}
}

// TestAWrittenLimitOfAnEmptyDirStays has a larger one, and one that is none to the kubelet.
func TestAWrittenLimitOfAnEmptyDirStays(t *testing.T) {
	g := NewWithT(t)
	objects, err := Build(headscaleOf(t, specWithVolumes("{name: a, emptyDir: {sizeLimit: 5Gi}}, {name: b, emptyDir: {sizeLimit: 0}}")), operatorOptions)
	g.Expect(err).NotTo(HaveOccurred())
	limits := map[string]string{}
	for _, volume := range objects.StatefulSet.Spec.Template.Spec.Volumes {
		if volume.EmptyDir != nil {
			limits[*volume.Name] = volume.EmptyDir.SizeLimit.String()
		}
	}
	g.Expect(limits).To(Equal(map[string]string{volumeSocket: "16Mi", volumeTmp: "1Gi", "a": "5Gi", "b": "0"}))
}

// TestRoleWithoutAForeignSecret shows that a Secret that is somebody else's is in no rule.
func TestRoleWithoutAForeignSecret(t *testing.T) {
	g := NewWithT(t)
	objects, err := Build(headscaleOf(t, shortSpec("")), Options{ManagerImage: "m", SecretIsForeign: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(objects.Role.Rules).To(HaveLen(1))
	g.Expect(objects.Role.Rules[0].Verbs).To(ConsistOf("create"))
}
