package integration_test

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// certificate makes a key pair for a name, as PEM, that signs itself.
func certificate(name string) (chain, key []byte) {
	GinkgoHelper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	Expect(err).NotTo(HaveOccurred())
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	Expect(err).NotTo(HaveOccurred())
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// database is as much of a PostgreSQL as asks who wants in, and turns them away: a real one
// does not tell which password it was given. It returns its port, and the passwords.
func database(ctx context.Context) (port int, passwords <-chan string) {
	GinkgoHelper()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(listener.Close)
	given := make(chan string, 100)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			if password := askPassword(connection); password != "" {
				given <- password
			}
			_ = connection.Close()
		}
	}()
	address, ok := listener.Addr().(*net.TCPAddr)
	Expect(ok).To(BeTrue())
	return address.Port, given
}

// askPassword asks a client of PostgreSQL's protocol, version 3, for its password in clear.
func askPassword(connection net.Conn) string {
	_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
	start := make([]byte, 4)
	if _, err := io.ReadFull(connection, start); err != nil {
		return ""
	}
	if _, err := io.CopyN(io.Discard, connection, int64(binary.BigEndian.Uint32(start))-4); err != nil {
		return ""
	}
	// AuthenticationCleartextPassword.
	if _, err := connection.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3}); err != nil {
		return ""
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(connection, head); err != nil || head[0] != 'p' {
		return ""
	}
	password := make([]byte, min(binary.BigEndian.Uint32(head[1:])-4, 1024))
	if _, err := io.ReadFull(connection, password); err != nil {
		return ""
	}
	return strings.TrimRight(string(password), "\x00")
}

// issuer is an OIDC issuer that nobody can log in at. It hands on which client secrets it
// is shown.
func issuer() (address string, secrets <-chan string) {
	shown := make(chan string, 100)
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	DeferCleanup(server.Close)
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": server.URL, "authorization_endpoint": server.URL + "/login", "token_endpoint": server.URL + "/token",
			"jwks_uri": server.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if _, secret, basic := r.BasicAuth(); basic {
			shown <- secret
		}
		http.Error(w, `{"error": "invalid_grant"}`, http.StatusBadRequest)
	})
	return server.URL, shown
}

var _ = Describe("What a Headscale refers to", func() {
	// with is the shortest manifest with more in its config and its spec.
	with := func(config, spec string) string {
		return strings.Replace(shortestManifest, "}}\n", config+"}, "+spec+"}\n", 1)
	}
	secret := func(ctx context.Context, namespace, name string, data map[string][]byte) *corev1.Secret {
		GinkgoHelper()
		object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}
		Expect(admin.Create(ctx, object)).To(Succeed())
		return object
	}
	// visit asks Headscale's first port for a path, with headers and cookies, and follows
	// no redirection.
	visit := func(ctx context.Context, hs *server, path string, header http.Header, cookies []*http.Cookie) *http.Response {
		GinkgoHelper()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+hs.pod.Address(containerHeadscale, "http")+path, http.NoBody)
		Expect(err).NotTo(HaveOccurred())
		for name := range header {
			request.Header.Set(name, header.Get(name))
		}
		for _, cookie := range cookies {
			request.AddCookie(cookie)
		}
		response, err := http.DefaultTransport.RoundTrip(request)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(response.Body.Close)
		return response
	}

	It("is a TLS key pair, which Headscale serves and the probes expect, also after it was renewed", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		first, key := certificate("headscale.example.com")
		pair := secret(ctx, namespace, "pair", map[string][]byte{"tls.crt": first, "tls.key": key})
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, with("", "secrets: {tls: {name: pair}}"))
		hs.awaitReady(ctx)
		status := func(certificate []byte) func() (int, error) {
			roots := x509.NewCertPool()
			Expect(roots.AppendCertsFromPEM(certificate)).To(BeTrue())
			return func() (int, error) {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+hs.pod.Address(containerHeadscale, "http")+"/health", http.NoBody)
				if err != nil {
					return 0, err
				}
				transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "headscale.example.com"}}
				response, err := transport.RoundTrip(request)
				if err != nil {
					return 0, err
				}
				return response.StatusCode, response.Body.Close()
			}
		}
		Expect(status(first)()).To(Equal(http.StatusOK))

		second, key := certificate("headscale.example.com")
		pair.Data = map[string][]byte{"tls.crt": second, "tls.key": key}
		Expect(admin.Update(ctx, pair)).To(Succeed())
		Eventually(status(second)).Should(Equal(http.StatusOK))
		hs.awaitReady(ctx)
	})

	It("is the key of Headscale's own relay, which says so", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		raw := []byte(strings.Repeat("D", 32))
		private, err := ecdh.X25519().NewPrivateKey(raw)
		Expect(err).NotTo(HaveOccurred())
		secret(ctx, namespace, "relay", map[string][]byte{"key": []byte("privkey:" + hex.EncodeToString(raw) + "\n")})
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, with("", "secrets: {derp_private_key: {name: relay, key: key}}"))
		hs.awaitReady(ctx)
		response := visit(ctx, hs, "/derp", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"DERP"}}, nil)
		Expect(response.StatusCode).To(Equal(http.StatusSwitchingProtocols))
		Expect(response.Header.Get("Derp-Public-Key")).To(HaveSuffix(hex.EncodeToString(private.PublicKey().Bytes())))
		Expect(hs.pod.HostPath(containerHeadscale, "/var/lib/headscale/derp_server_private.key")).NotTo(BeAnExistingFile())
	})

	It("is a file of DNS records, which Headscale reads", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		records := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "records"},
			Data:       map[string]string{"records.json": `[{"name": "a.example.com", "type": "A"`},
		}
		Expect(admin.Create(ctx, records)).To(Succeed())
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, with("", "files: {extra_dns_records: {config_map: {name: records, key: records.json}}}"))
		Eventually(func() string { return hs.pod.Log(containerHeadscale) }).Should(
			MatchRegexp(`(?m)^.*(extra.records|reading records).*unexpected end of JSON input`))
		records.Data["records.json"] += `, "value": "100.64.0.99"}]`
		Expect(admin.Update(ctx, records)).To(Succeed())
		// The kubelet would update the file, and Headscale reads it again; here it comes with a new pod.
		apply(ctx, namespace, with("", "files: {extra_dns_records: {config_map: {name: records, key: records.json}}}, pod: {annotations: {again: please}}"))
		hs.awaitReady(ctx)
	})

	It("is an OIDC client secret, with which Headscale asks the issuer", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		address, secrets := issuer()
		secret(ctx, namespace, "oidc", map[string][]byte{"client": []byte("of-the-client\n")})
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, with(`, oidc: {issuer: "`+address+`", client_id: headscale}`, "secrets: {oidc_client_secret: {name: oidc, key: client}}"))
		hs.awaitReady(ctx)
		login := visit(ctx, hs, "/register/hskey-authreq-"+strings.Repeat("a", 24), nil, nil)
		Expect(login.StatusCode).To(Equal(http.StatusFound))
		target, err := url.Parse(login.Header.Get("Location"))
		Expect(err).NotTo(HaveOccurred())
		Expect(target.String()).To(HavePrefix(address + "/login?"))
		back := url.Values{"code": {"none"}, "state": {target.Query().Get("state")}}
		Expect(visit(ctx, hs, "/oidc/callback?"+back.Encode(), nil, login.Cookies()).StatusCode).To(Equal(http.StatusForbidden), "the issuer does not know the code")
		Eventually(secrets).Should(Receive(Equal("of-the-client")))
	})

	It("is an OIDC client secret whose issuer cannot be reached, where Headscale may start without it", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		secret(ctx, namespace, "oidc", map[string][]byte{"client": []byte("of-the-client")})
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, with(`, oidc: {issuer: "http://127.0.0.1:1", client_id: headscale, only_start_if_oidc_is_available: false}`, "secrets: {oidc_client_secret: {name: oidc, key: client}}"))
		hs.awaitReady(ctx)
	})

	It("is the password of a database, with which Headscale asks to be let in", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		port, passwords := database(ctx)
		login := secret(ctx, namespace, "database", map[string][]byte{"password": []byte("s3cret=%&")})
		runPod(namespace, "headscale")
		postgres, err := json.Marshal(map[string]any{"host": "127.0.0.1", "port": port, "name": "headscale", "user": "headscale", "ssl": false})
		Expect(err).NotTo(HaveOccurred())
		apply(ctx, namespace, with(", database: {type: postgres, postgres: "+string(postgres)+"}", "secrets: {database_password: {name: database, key: password}}"))
		Eventually(passwords).Should(Receive(Equal("s3cret=%&")))

		login.Data["password"] = []byte("another")
		Expect(admin.Update(ctx, login)).To(Succeed())
		Eventually(passwords).Should(Receive(Equal("another")))
	})
})
