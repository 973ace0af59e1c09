package user

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/env"
)

const (
	oidcClient = "headscale"
	oidcKey    = "test"
)

// provider is an identity provider that believes everybody. It keeps nothing: its codes, which are
// its access tokens, too, say who logged in.
type provider struct {
	*httptest.Server
	key *rsa.PrivateKey
	// name is who logs in.
	name atomic.Value
}

// login is what a code says.
type login struct{ Name, Nonce string }

// code makes a code.
func (l login) code() string {
	raw, _ := json.Marshal(l) // cannot fail
	return encode(raw)
}

// loginOf reads a code.
func loginOf(code string) (l login) {
	raw, _ := base64.RawURLEncoding.DecodeString(code)
	_ = json.Unmarshal(raw, &l) // of what is none, nobody
	return l
}

// startProvider starts an identity provider.
func startProvider() *provider {
	GinkgoHelper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	Expect(err).NotTo(HaveOccurred())
	p := &provider{key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"userinfo_endpoint": p.URL + "/userinfo", "id_token_signing_alg_values_supported": []string{"RS256"}, "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"keys": []any{map[string]any{
			"kty": "RSA", "alg": "RS256", "use": "sig", "kid": oidcKey, "n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes()),
		}}})
	})
	mux.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
		asked := r.URL.Query()
		name, _ := p.name.Load().(string)
		code := login{Name: name, Nonce: asked.Get("nonce")}.code()
		http.Redirect(w, r, asked.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {asked.Get("state")}}.Encode(), http.StatusFound)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		code := r.FormValue("code")
		answer(w, map[string]any{"access_token": code, "token_type": "Bearer", "expires_in": 3600, "id_token": p.token(loginOf(code))})
	})
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		answer(w, p.claims(loginOf(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))))
	})
	p.Server = httptest.NewServer(mux)
	DeferCleanup(p.Close)
	return p
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // to a test
}

func encode(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

// claims are what the provider says of who logs in.
func (p *provider) claims(l login) map[string]any {
	return map[string]any{
		"iss": p.URL, "sub": "sub-" + l.Name, "aud": oidcClient, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "nonce": l.Nonce,
		"preferred_username": l.Name, "name": l.Name, "email": l.Name + "@example.com", "email_verified": true,
	}
}

// token is a signed token with the claims.
func (p *provider) token(l login) string {
	header, _ := json.Marshal(map[string]string{"alg": "RS256", "typ": "JWT", "kid": oidcKey}) // cannot fail
	claims, _ := json.Marshal(p.claims(l))
	signed := encode(header) + "." + encode(claims)
	digest := sha256.Sum256([]byte(signed))
	signature, _ := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, digest[:])
	return signed + "." + encode(signature)
}

// config is that of a Headscale that has the provider.
func (p *provider) config() map[string]any {
	return map[string]any{"oidc": map[string]any{
		"issuer": p.URL, "client_id": oidcClient, "client_secret": "secret", "only_start_if_oidc_is_available": true,
	}}
}

// logIn has somebody log in, of whom Headscale makes a user before it finds that there is no node.
func (p *provider) logIn(ctx context.Context, hs *env.Headscale, s *server, name string) headscale.User {
	GinkgoHelper()
	p.name.Store(name)
	jar, err := cookiejar.New(nil)
	Expect(err).NotTo(HaveOccurred())
	registration := strings.Repeat("a", 24)
	if strings.Contains(hs.Binary, "v0.29.") {
		registration = "hskey-authreq-" + registration
	}
	request, err := http.NewRequestWithContext(ctx, "GET", hs.URL()+"/register/"+registration, http.NoBody)
	Expect(err).NotTo(HaveOccurred())
	response, err := (&http.Client{Jar: jar}).Do(request)
	Expect(err).NotTo(HaveOccurred())
	page, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	Expect(response.Body.Close()).To(Succeed())
	users, err := s.Direct.ListUsers(ctx)
	Expect(err).NotTo(HaveOccurred())
	for i := range users {
		if isForeign(&users[i]) && users[i].Name == name {
			return users[i]
		}
	}
	Fail(fmt.Sprintf("nobody could log in: %s: %s", response.Status, page))
	return headscale.User{}
}

// backUp copies the database of a Headscale that is stopped.
func backUp(hs *env.Headscale) {
	GinkgoHelper()
	from := filepath.Join(filepath.Dir(hs.SocketPath()), hs.Database)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		content, err := os.ReadFile(from + suffix)
		if os.IsNotExist(err) && suffix != "" {
			continue
		}
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(filepath.Join(filepath.Dir(from), older+suffix), content, 0o600)).To(Succeed())
	}
}

// older is the name of a backup.
const older = "older.sqlite"

var _ = Describe("A HeadscaleUser", func() {
	for _, version := range releases {
		It("takes no stranger for its own after a restore, and nobody of an identity provider, on "+version, func(ctx SpecContext) {
			people := startProvider()
			hs := cluster.StartHeadscale(ctx, version, people.config())
			namespace := newNamespace(ctx)
			startOperator(namespace)
			s := newServer(ctx, namespace, version, headscale.UnixSocket(hs.SocketPath()))
			want := func(name, username string) {
				GinkgoHelper()
				apply(ctx, namespace, userManifest(name, "deletionPolicy: Delete, username: "+username))
			}
			ready := func(name, username string) headscale.User {
				GinkgoHelper()
				Eventually(condition(ctx, namespace, name)).WithContext(ctx).Should(HavePrefix("True Ready: User " + username + " "))
				return s.named(ctx, username)
			}
			// away has something happen while the operator does not reach Headscale.
			away := func(happen func()) {
				GinkgoHelper()
				s.SetRefused(fmt.Errorf("%w: away", headscale.ErrUnavailable))
				Eventually(condition(ctx, namespace, "kept")).WithContext(ctx).Should(HavePrefix("False EndpointUnreachable: "))
				happen()
				s.SetRefused(nil)
			}
			want("kept", "kept")
			kept := ready("kept", "kept")
			away(func() {
				Expect(hs.Stop()).To(Succeed())
				backUp(hs)
				Expect(hs.Start(ctx)).To(Succeed())
			})
			want("kept", "renamed")
			Expect(ready("kept", "renamed").ID).To(Equal(kept.ID))
			want("third", "third")
			want("fourth", "fourth")
			third, fourth := ready("third", "third"), ready("fourth", "fourth")
			first, second := min(third.ID, fourth.ID), max(third.ID, fourth.ID)

			var olga, mallory headscale.User
			away(func() {
				Expect(hs.Stop()).To(Succeed())
				hs.Database = older
				Expect(hs.Start(ctx)).To(Succeed())
				// The status has the creation time to the second, and no restore is that quick.
				Eventually(func() int64 { return time.Now().Unix() }).WithContext(ctx).Should(BeNumerically(">", max(third.CreatedAt.Unix(), fourth.CreatedAt.Unix())))
				olga = people.logIn(ctx, hs, s, "olga")
				var err error
				mallory, err = s.Direct.CreateUser(ctx, headscale.NewUser{Name: "mallory"})
				Expect(err).NotTo(HaveOccurred())
				Expect([]uint64{olga.ID, mallory.ID}).To(Equal([]uint64{first, second}), "ids are given out again")
			})
			By("making anew what the backup does not have, and renaming what it has under an older name")
			Expect(ready("kept", "renamed").ID).To(Equal(kept.ID))
			for _, name := range []string{"third", "fourth"} {
				Eventually(events(ctx, namespace, name)).WithContext(ctx).Should(ContainElement(HavePrefix("UserReplaced: ")))
				Expect(ready(name, name).ID).To(BeNumerically(">", second))
			}
			strangers := ContainElements(olga, mallory)
			Expect(s.Direct.ListUsers(ctx)).To(And(HaveLen(5), strangers))

			By("leaving alone who logged in, also where an object has that name")
			want("olga", "olga")
			Eventually(condition(ctx, namespace, "olga")).WithContext(ctx).Should(And(HavePrefix("False Conflict: "), ContainSubstring("was created by an identity provider, and such users are not taken over")))
			Expect(get(ctx, namespace, "olga")(NewWithT(GinkgoT())).Finalizers).To(BeEmpty())
			namesake := people.logIn(ctx, hs, s, "third")
			Consistently(condition(ctx, namespace, "third")).WithContext(ctx).Should(HavePrefix("True Ready: User third "))
			for _, name := range []string{"olga", "third", "fourth", "kept"} {
				deleteUser(ctx, namespace, name)
				Eventually(get(ctx, namespace, name)).WithContext(ctx).Should(BeNil())
			}
			Expect(s.Direct.ListUsers(ctx)).To(ConsistOf(olga, mallory, namesake))
		})
	}
})
