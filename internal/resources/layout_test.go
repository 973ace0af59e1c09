package resources

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// portsByName maps the names of a Service's ports to their numbers.
func portsByName(service *corev1ac.ServiceApplyConfiguration) map[string]int32 {
	ports := map[string]int32{}
	for _, p := range service.Spec.Ports {
		ports[*p.Name] = *p.Port
	}
	return ports
}

func TestPorts(t *testing.T) {
	for name, test := range map[string]struct {
		config           string
		service, metrics map[string]int32
	}{
		"by default":                              {"", map[string]int32{"http": 8080, "grpc": 50443, "stun": 3478}, map[string]int32{"metrics": 9090, "apikey-metrics": 9101}},
		"as written":                              {`, listen_addr: ":80", grpc_listen_addr: "[::]:81", metrics_listen_addr: "host:82"`, map[string]int32{"http": 80, "grpc": 81, "stun": 3478}, map[string]int32{"metrics": 82, "apikey-metrics": 9101}},
		"no metrics":                              {`, metrics_listen_addr: ""`, map[string]int32{"http": 8080, "grpc": 50443, "stun": 3478}, map[string]int32{"apikey-metrics": 9101}},
		"loopback":                                {`, metrics_listen_addr: "localhost:9090", grpc_listen_addr: "127.0.0.1:50443"`, map[string]int32{"http": 8080, "stun": 3478}, map[string]int32{"apikey-metrics": 9101}},
		"no relay of its own":                     {`, derp: {urls: [u]}`, map[string]int32{"http": 8080, "grpc": 50443}, map[string]int32{"metrics": 9090, "apikey-metrics": 9101}},
		"a certificate of its own":                {`, listen_addr: ":443", tls_letsencrypt_hostname: a.example`, map[string]int32{"http": 443, "grpc": 50443, "stun": 3478, "acme": 80}, map[string]int32{"metrics": 9090, "apikey-metrics": 9101}},
		"a certificate, by Headscale's default":   {`, tls_letsencrypt_hostname: a.example, tls_letsencrypt_listen: ":http"`, map[string]int32{"http": 8080, "grpc": 50443, "stun": 3478, "acme": 80}, map[string]int32{"metrics": 9090, "apikey-metrics": 9101}},
		"a certificate, behind another port":      {`, tls_letsencrypt_hostname: a.example, tls_letsencrypt_challenge_type: HTTP-01, tls_letsencrypt_listen: ":8081"`, map[string]int32{"http": 8080, "grpc": 50443, "stun": 3478, "acme": 8081}, map[string]int32{"metrics": 9090, "apikey-metrics": 9101}},
		"a certificate without another port":      {`, tls_letsencrypt_hostname: a.example, tls_letsencrypt_challenge_type: TLS-ALPN-01`, map[string]int32{"http": 8080, "grpc": 50443, "stun": 3478}, map[string]int32{"metrics": 9090, "apikey-metrics": 9101}},
		"a UDP port and a TCP port of one number": {`, derp: {server: {enabled: true, stun_listen_addr: ":8080"}}`, map[string]int32{"http": 8080, "grpc": 50443, "stun": 8080}, map[string]int32{"metrics": 9090, "apikey-metrics": 9101}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			objects, err := Build(headscaleOf(t, shortSpec(test.config)), operatorOptions)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(portsByName(objects.Service)).To(Equal(test.service))
			g.Expect(portsByName(objects.MetricsService)).To(Equal(test.metrics))

			unmanaged := headscaleOf(t, shortSpec(test.config))
			unmanaged.Spec.APIKey.AutoManage = new(bool)
			objects, err = Build(unmanaged, operatorOptions)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(portsByName(objects.Service)).To(Equal(test.service))
			delete(test.metrics, "apikey-metrics")
			if len(test.metrics) == 0 {
				g.Expect(objects.MetricsService).To(BeNil())
				return
			}
			g.Expect(portsByName(objects.MetricsService)).To(Equal(test.metrics))
		})
	}
}

func TestThePortOfTheManager(t *testing.T) {
	for config, sentence := range map[string]string{
		`, listen_addr: "0.0.0.0:9101"`:                                "spec.config.listen_addr has the port 9101, on which the API Key Manager serves its metrics: choose another",
		`, metrics_listen_addr: "127.0.0.1:9101"`:                      "spec.config.metrics_listen_addr has the port 9101, on which the API Key Manager serves its metrics: choose another",
		`, grpc_listen_addr: ":9102"`:                                  "spec.config.grpc_listen_addr has the port 9102, on which the API Key Manager serves Headscale's admin API: choose another",
		`, grpc_listen_addr: ":9101"`:                                  "spec.config.grpc_listen_addr has the port 9101, on which the API Key Manager serves its metrics: choose another",
		`, derp: {server: {enabled: true, stun_listen_addr: ":9101"}}`: "",
	} {
		t.Run(config, func(t *testing.T) {
			g := NewWithT(t)
			headscale := headscaleOf(t, shortSpec(config))
			_, err := Build(headscale, operatorOptions)
			if sentence == "" {
				g.Expect(err).NotTo(HaveOccurred(), "it is UDP")
			} else {
				g.Expect(err).To(MatchError(sentence))
				g.Expect(err).To(BeAssignableToTypeOf(&InvalidError{}))
			}
			headscale.Spec.APIKey.AutoManage = new(bool)
			_, err = Build(headscale, operatorOptions)
			g.Expect(err).NotTo(HaveOccurred(), "nobody else is there")
		})
	}
}

func TestTheManagersProbeIsPatientAndNeverKeepsThePodFromBeingReady(t *testing.T) {
	g := NewWithT(t)
	objects, err := Build(headscaleOf(t, shortSpec("")), operatorOptions)
	g.Expect(err).NotTo(HaveOccurred())
	manager := objects.StatefulSet.Spec.Template.Spec.Containers[1]
	g.Expect(manager.ReadinessProbe).To(BeNil())
	g.Expect(manager.StartupProbe).To(BeNil())
	probe := manager.LivenessProbe
	g.Expect(*probe.HTTPGet.Path).To(Equal("/healthz"))
	g.Expect(probe.HTTPGet.Port.String()).To(Equal(*manager.Ports[0].Name))
	g.Expect(*probe.PeriodSeconds * *probe.FailureThreshold).To(BeNumerically(">=", 180))
	g.Expect(manager.Args).To(ContainElements(fmt.Sprintf("--metrics-bind-address=:%d", *manager.Ports[0].ContainerPort), "--headscale-version=v0.29.3"))
}

func TestProbesFollowTheConfig(t *testing.T) {
	for name, test := range map[string]struct {
		config string
		scheme corev1.URIScheme
	}{
		"without TLS":                     {"", corev1.URISchemeHTTP},
		"with TLS":                        {", tls_cert_path: /c, tls_key_path: /k", corev1.URISchemeHTTPS},
		"with TLS for one host's clients": {", tls_letsencrypt_hostname: a.example", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			objects, err := Build(headscaleOf(t, shortSpec(test.config)), operatorOptions)
			g.Expect(err).NotTo(HaveOccurred())
			container := objects.StatefulSet.Spec.Template.Spec.Containers[0]
			for _, probe := range []*corev1ac.ProbeApplyConfiguration{container.StartupProbe, container.ReadinessProbe} {
				if test.scheme == "" {
					g.Expect(probe.TCPSocket.Port.String()).To(Equal("http"))
					continue
				}
				g.Expect(*probe.HTTPGet.Path).To(Equal("/health"))
				g.Expect(probe.HTTPGet.Port.String()).To(Equal("http"))
				g.Expect(*probe.HTTPGet.Scheme).To(Equal(test.scheme))
			}
			g.Expect(container.LivenessProbe.TCPSocket).NotTo(BeNil(), "a database that is away must not restart Headscale")
		})
	}
}

func TestPrivilegedPorts(t *testing.T) {
	for config, want := range map[string]int{"": 0, `, listen_addr: ":443"`: 1, `, metrics_listen_addr: "127.0.0.1:80"`: 0} {
		g := NewWithT(t)
		objects, err := Build(headscaleOf(t, shortSpec(config)), operatorOptions)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(objects.StatefulSet.Spec.Template.Spec.SecurityContext.Sysctls).To(HaveLen(want), config)
	}
}

func TestChangedConfigMakesANewPod(t *testing.T) {
	g := NewWithT(t)
	hash := func(config string) string {
		objects, err := Build(headscaleOf(t, shortSpec(config)), operatorOptions)
		g.Expect(err).NotTo(HaveOccurred())
		return objects.StatefulSet.Spec.Template.Annotations[AnnotationConfigHash]
	}
	g.Expect(hash("")).To(MatchRegexp("^[0-9a-f]{64}$"))
	g.Expect(hash(", log: {level: debug}")).NotTo(Equal(hash("")))
	g.Expect(hash(", a: 1, b: 2")).To(Equal(hash(", b: 2, a: 1")), "the order of keys means nothing")
	g.Expect(hash(", disable_check_updates: true")).To(Equal(hash("")), "writing out a default changes nothing")
}

func TestImageReference(t *testing.T) {
	for image, want := range map[string]string{
		"headscale/headscale":                       "headscale/headscale:v1",
		"headscale":                                 "headscale:v1",
		"registry.example:5000/headscale":           "registry.example:5000/headscale:v1",
		"headscale/headscale:custom":                "headscale/headscale:custom",
		"registry.example:5000/a/headscale:custom":  "registry.example:5000/a/headscale:custom",
		"headscale/headscale@sha256:0123":           "headscale/headscale@sha256:0123",
		"registry.example:5000/headscale@sha256:01": "registry.example:5000/headscale@sha256:01",
		"headscale:v2@sha256:0123":                  "headscale:v2@sha256:0123",
	} {
		NewWithT(t).Expect(imageReference(image, "v1")).To(Equal(want))
	}
}

func TestDurationText(t *testing.T) {
	for expiration, want := range map[string]string{"2160h": "1920h", "720h": "640h", "1h": "53m20s", "9m": "8m", "45m": "40m", "9s": "8s", "90h": "80h", "1h7m30s": "1h"} {
		g := NewWithT(t)
		headscale := headscaleOf(t, shortSpec(""))
		headscale.Spec.APIKey.Expiration = v1beta1.Duration(expiration)
		objects, err := Build(headscale, operatorOptions)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(objects.StatefulSet.Spec.Template.Spec.Containers[1].Args).To(ContainElement("--rotation-buffer="+want), expiration)
	}
}
