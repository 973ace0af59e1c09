package preauthkeys_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/nodetest"
	"infrado.cloud/headscale-operator/internal/rotation"
)

const (
	// kills and manyKills are how often an operator is killed in the usual suite and in the slow one.
	kills, manyKills = 20, 200
	// shortestLife and longestLife are how long after its start an operator is killed: it begins to
	// reconcile after some 300 ms, and has done what there is to do after a second.
	shortestLife, longestLife = 200 * time.Millisecond, 1200 * time.Millisecond
	// objectsEach is how many objects each Headscale has.
	objectsEach = 3
)

var _ = Describe("Killed at random times, an operator", func() {
	It(fmt.Sprintf("leaves one key of each object, %d times", kills), func(ctx SpecContext) { killAtRandom(ctx, kills) })
	It(fmt.Sprintf("leaves one key of each object, %d times", manyKills), Label(slow), func(ctx SpecContext) {
		for _, k := range killAtRandom(ctx, manyKills) {
			// A key that was announced and never made is looked for that long.
			Eventually(k.ledger).WithContext(ctx).WithArguments(ctx).WithTimeout(rotation.PendingTimeout + healLimit).Should(BeEmpty())
		}
	})
})

// killAtRandom kills operators that have work to do at every Headscale, and returns the objects.
func killAtRandom(ctx context.Context, times int) []*object {
	GinkgoHelper()
	seed := uint64(GinkgoRandomSeed())
	random := rand.New(rand.NewPCG(seed, 0))
	By(fmt.Sprintf("killing with the seed %d (-ginkgo.seed)", seed))
	o := newOperators(ctx)
	tailnets := newTailnets(ctx, o, versions)
	var all []*object
	strangers := map[*tailnet]uint64{}
	for _, t := range tailnets {
		for i := range objectsEach {
			all = append(all, t.newObject(ctx, fmt.Sprintf("key-%d", i)))
		}
		strangers[t] = t.makeStranger(ctx)
	}
	together(all, func(k *object) { k.heals(ctx) })
	texts := map[string]bool{}
	interrupted := 0
	o.kill()
	for range times {
		before := map[*object]string{}
		for _, k := range all {
			k.disturb(ctx, random, texts)
			before[k] = k.ledger(ctx)
		}
		running := o.start()
		life := time.NewTimer(shortestLife + time.Duration(random.Int64N(int64(longestLife-shortestLife))))
		select {
		case <-life.C:
		case <-running.Exited():
			Fail("the operator ended by itself")
		}
		o.kill()
		for _, k := range all {
			if now := k.ledger(ctx); now != "" && now != before[k] {
				interrupted++
			}
		}
	}
	o.start()
	together(all, func(k *object) {
		k.heals(ctx)
		k.opens(ctx)
	})
	together(all, func(k *object) { k.heals(ctx) })
	for t, id := range strangers {
		t.expectStranger(ctx, id)
	}
	for _, k := range all {
		stored, err := k.stored(ctx)
		Expect(err).NotTo(HaveOccurred())
		texts[stored] = true
	}
	o.expectSilence(ctx, texts)
	seen("SIGKILL at a random time", "all versions", times, "kills,", interrupted, "times between two steps of an object")
	return all
}

// disturb gives the next operator something to do: the key was used, or its Secret deleted, or
// another one is asked for, or the spec is another one.
func (k *object) disturb(ctx context.Context, random *rand.Rand, texts map[string]bool) {
	GinkgoHelper()
	stored, err := k.stored(ctx)
	Expect(err).NotTo(HaveOccurred())
	if stored == "" {
		return
	}
	texts[stored] = true
	switch random.IntN(4) {
	case 0:
		// A key whose operator was killed may be one that is expired already.
		_, err := nodetest.Register(ctx, k.t.server.URL(), stored)
		Expect(err).NotTo(HaveOccurred())
	case 1:
		Expect(client.IgnoreNotFound(admin.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: k.t.namespace, Name: k.name}}))).To(Succeed())
	case 2:
		k.request(ctx, fmt.Sprint(random.Int64()))
	case 3:
		k.set(ctx, fmt.Sprintf("ephemeral: %t", random.IntN(2) == 0))
	}
}

// makeStranger makes a key of a user that no object is about, and returns the id of the user.
func (t *tailnet) makeStranger(ctx context.Context) uint64 {
	GinkgoHelper()
	user, err := t.direct.CreateUser(ctx, headscale.NewUser{Name: "stranger"})
	Expect(err).NotTo(HaveOccurred())
	_, err = t.direct.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: user.ID, Expiration: time.Now().Add(2 * time.Hour)})
	Expect(err).NotTo(HaveOccurred())
	return user.ID
}

// expectStranger expects the key of somebody else to be as it was.
func (t *tailnet) expectStranger(ctx context.Context, user uint64) {
	GinkgoHelper()
	keys, err := t.direct.ListPreAuthKeys(ctx, []uint64{user})
	Expect(err).NotTo(HaveOccurred())
	Expect(keys).To(ContainElement(And(HaveField("UserID", user), HaveField("Expiration", HaveValue(BeTemporally(">", time.Now()))))), "the key of somebody else")
}

// expectSilence expects no key in what was printed, in the metrics of the operator and of the API Key
// Managers, and in what the API server shows of objects other than Secrets.
func (o *operators) expectSilence(ctx context.Context, texts map[string]bool) {
	GinkgoHelper()
	said := o.printed.String()
	for _, namespace := range o.namespaces {
		shown, err := world.Plane.Kubectl(ctx, "get", "headscales,headscaleusers,headscalepreauthkeys,events", "-n", namespace, "-o", "yaml")
		Expect(err).NotTo(HaveOccurred())
		said += shown
	}
	said += metricsOf(ctx, o.metrics, "headscale_operator_preauthkey_ready{")
	for _, t := range o.tailnets {
		said += metricsOf(ctx, t.metrics, "headscale_apikey_")
	}
	Expect(texts).NotTo(BeEmpty())
	for text := range texts {
		Expect(said).NotTo(ContainSubstring(text[len(text)-24:]), "the secret half of a key")
	}
}

// metricsOf scrapes the metrics at an address, in which there is a name.
func metricsOf(ctx context.Context, address, name string) (page string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", http.NoBody)
		g.Expect(err).NotTo(HaveOccurred())
		response, err := http.DefaultClient.Do(request)
		g.Expect(err).NotTo(HaveOccurred())
		defer func() { _ = response.Body.Close() }()
		read, err := io.ReadAll(response.Body)
		g.Expect(err).NotTo(HaveOccurred())
		page = string(read)
		g.Expect(page).To(ContainSubstring(name))
	}).WithContext(ctx).Should(Succeed())
	return page
}
