package headscale_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/internal/headscale/nodetest"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// contestant is a Headscale that has to pass the contract: a fake of a release, or a real one.
type contestant struct {
	release  headscaletest.Release
	version  string // of a real one; empty: the fake
	postgres bool   // has its database there, and not in SQLite

	socket string
	client *headscale.Client
	// register makes a node of a user, and returns its ID. Tags are those of a pre-auth key.
	register func(ctx context.Context, user uint64, tags ...string) uint64
	// registerRouter makes a node of a user that announces routes, and is connected until the end of
	// the spec.
	registerRouter func(ctx context.Context, user uint64, routes ...string) uint64
}

func (c *contestant) String() string {
	switch {
	case c.postgres:
		return "real " + c.version + " on Postgres"
	case c.version != "":
		return "real " + c.version
	default:
		return "fake " + c.release.String()
	}
}

// contestants are all of them; there is no real v0.30.
func contestants() []*contestant {
	return []*contestant{
		{release: headscaletest.V026}, {release: headscaletest.V027}, {release: headscaletest.V028},
		{release: headscaletest.V029}, {release: headscaletest.V030},
		{release: headscaletest.V026, version: "v0.26.1"}, {release: headscaletest.V027, version: "v0.27.1"},
		{release: headscaletest.V028, version: "v0.28.0"}, {release: headscaletest.V029, version: "v0.29.3"},
		{release: headscaletest.V026, version: "v0.26.1", postgres: true}, {release: headscaletest.V029, version: "v0.29.3", postgres: true},
	}
}

var _ = Describe("The contract of the client with Headscale", func() {
	for _, c := range contestants() {
		Context(c.String(), Ordered, ContinueOnFailure, func() {
			BeforeAll(func(ctx SpecContext) {
				if c.version != "" {
					c.startReal(ctx, map[string]any{"policy": map[string]any{"mode": "database"}})
				}
			})
			BeforeEach(func() {
				if c.version == "" {
					c.startFake()
				}
				c.client = newClient(c.socket, headscale.WithKeepAlive())
			})
			describeUsers(c)
			describePolicy(c)
			describePreAuthKeys(c)
			describeRefusedPreAuthKeys(c)
			describeTheEndOfPreAuthKeys(c)
			describeNodes(c)
			describeChangesOfNodes(c)
		})
	}
})

// startWithin is how long a server may take until it answers.
const startWithin = time.Minute

func (c *contestant) startFake() {
	GinkgoHelper()
	server := startFake(socketPath(), c.release)
	c.socket = server.SocketPath()
	c.register = func(_ context.Context, user uint64, tags ...string) uint64 {
		return server.Database().InsertNode(headscaletest.Node{Name: "web", UserID: user, Tags: tags, CreatedAt: time.Now()}).ID
	}
	c.registerRouter = func(_ context.Context, user uint64, routes ...string) uint64 {
		return server.Database().InsertNode(headscaletest.Node{
			Name: "router", UserID: user, CreatedAt: time.Now(), Online: true, AvailableRoutes: routes, Addresses: []string{"100.64.0.1", "fd7a:115c:a1e0::1"},
		}).ID
	}
}

// startReal starts the real server, with more in its config.
func (c *contestant) startReal(ctx context.Context, config map[string]any) *env.Headscale {
	GinkgoHelper()
	root, err := serverbuild.FindRoot()
	Expect(err).NotTo(HaveOccurred())
	servers, err := serverbuild.Find(serverbuild.Options{Root: root, Headscale: []string{c.version}})
	Expect(err).NotTo(HaveOccurred())
	guard, err := process.NewGuard("hs-client-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(guard.Close)
	if c.postgres {
		config["database"] = onPostgres(ctx, guard)
	}
	server, err := env.StartHeadscale(ctx, env.HeadscaleOptions{
		Binary: servers.Headscale[c.version], Guard: guard, Output: GinkgoWriter, Config: config,
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(server.Kill)
	c.socket = server.SocketPath()
	c.register = c.registerReal
	c.registerRouter = func(ctx context.Context, user uint64, routes ...string) uint64 {
		return c.connectRouter(ctx, server.URL(), user, routes...)
	}
	return server
}

// connectRouter registers a node as Tailscale does, with a pre-auth key, and connects it.
func (c *contestant) connectRouter(ctx context.Context, url string, user uint64, routes ...string) uint64 {
	GinkgoHelper()
	made, err := c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: user, Expiration: tomorrow()})
	Expect(err).NotTo(HaveOccurred())
	node, err := nodetest.New("router", routes...)
	Expect(err).NotTo(HaveOccurred())
	Expect(node.Register(ctx, url, made.Key.Reveal())).To(BeTrue())
	leave, err := node.Connect(ctx, url)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(leave)
	nodes, err := c.client.ListNodes(ctx)
	Expect(err).NotTo(HaveOccurred())
	for i := range nodes {
		if nodes[i].PreAuthKeyID == made.ID {
			return nodes[i].ID
		}
	}
	Fail("Headscale does not show the node")
	return 0
}

// node is the node of an id.
func (c *contestant) node(ctx context.Context, id uint64) (headscale.Node, error) {
	nodes, err := c.client.ListNodes(ctx)
	for i := range nodes {
		if nodes[i].ID == id {
			return nodes[i], nil
		}
	}
	return headscale.Node{}, errors.Join(err, fmt.Errorf("no node %d", id))
}

// registerReal makes a node as a developer of Headscale would, and tags it by hand.
func (c *contestant) registerReal(ctx context.Context, user uint64, tags ...string) uint64 {
	GinkgoHelper()
	conn, err := grpc.NewClient("unix:"+c.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = conn.Close() }()
	stub := v1.NewHeadscaleServiceClient(conn)
	name := c.userName(ctx, user)
	key := registrationKey(c.release)
	_, err = stub.DebugCreateNode(ctx, &v1.DebugCreateNodeRequest{User: name, Key: key, Name: "web"})
	Expect(err).NotTo(HaveOccurred())
	registered, err := stub.RegisterNode(ctx, &v1.RegisterNodeRequest{User: name, Key: key})
	Expect(err).NotTo(HaveOccurred())
	id := registered.GetNode().GetId()
	if len(tags) > 0 {
		_, err = stub.SetTags(ctx, &v1.SetTagsRequest{NodeId: id, Tags: tags})
		Expect(err).NotTo(HaveOccurred())
	}
	return id
}

// registrationKey makes up what a node asks to be registered with.
func registrationKey(release headscaletest.Release) string {
	random := strings.ReplaceAll(fmt.Sprintf("%024d", time.Now().UnixNano()), ".", "")[:24]
	if release >= headscaletest.V029 {
		return "hskey-authreq-" + random
	}
	return random
}

func (c *contestant) userName(ctx context.Context, id uint64) string {
	GinkgoHelper()
	users, err := c.client.ListUsers(ctx)
	Expect(err).NotTo(HaveOccurred())
	for _, user := range users {
		if user.ID == id {
			return user.Name
		}
	}
	Fail(fmt.Sprintf("no user %d", id))
	return ""
}

// makeUser makes a user with a name that begins as given.
func (c *contestant) makeUser(ctx context.Context, name string) headscale.User {
	GinkgoHelper()
	user, err := c.client.CreateUser(ctx, headscale.NewUser{Name: fmt.Sprintf("%s%d", name, time.Now().UnixNano())})
	Expect(err).NotTo(HaveOccurred())
	return user
}

func describeUsers(c *contestant) {
	It("makes, lists, renames and deletes a user", func(ctx SpecContext) {
		before, err := c.client.ListUsers(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(before).To(BeEmpty())

		long := strings.Repeat("é", 127)
		alice, err := c.client.CreateUser(ctx, headscale.NewUser{
			Name: "alice@example.com", DisplayName: long, Email: "alice@example.com", PictureURL: "https://example.com/a?b=c&d=<e>",
		})
		Expect(err).NotTo(HaveOccurred())
		Expect(alice.CreatedAt).To(BeTemporally("~", time.Now(), time.Minute))
		Expect(alice.ID).NotTo(BeZero())
		Expect(alice).To(Equal(headscale.User{
			ID: alice.ID, CreatedAt: alice.CreatedAt, Name: "alice@example.com", DisplayName: long,
			Email: "alice@example.com", PictureURL: "https://example.com/a?b=c&d=<e>",
		}))
		users, err := c.client.ListUsers(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(users).To(HaveLen(1))
		Expect(users[0].CreatedAt).To(BeTemporally("~", alice.CreatedAt, time.Microsecond), "the database may keep fewer digits")
		users[0].CreatedAt = alice.CreatedAt
		Expect(users[0]).To(Equal(alice))

		renamed, err := c.client.RenameUser(ctx, alice.ID, "a-user.2")
		Expect(err).NotTo(HaveOccurred())
		Expect(renamed.ID).To(Equal(alice.ID))
		Expect(renamed.Name).To(Equal("a-user.2"))
		Expect(renamed.DisplayName).To(Equal(long))
		Expect(c.userName(ctx, alice.ID)).To(Equal("a-user.2"))

		Expect(c.client.DeleteUser(ctx, alice.ID)).To(Succeed())
		Expect(c.client.ListUsers(ctx)).To(BeEmpty())
	})

	It("says that a name is taken", func(ctx SpecContext) {
		one, other := c.makeUser(ctx, "one"), c.makeUser(ctx, "other")
		_, err := c.client.CreateUser(ctx, headscale.NewUser{Name: one.Name})
		Expect(err).To(MatchError(headscale.ErrUserExists))
		_, err = c.client.RenameUser(ctx, other.ID, one.Name)
		Expect(err).To(MatchError(headscale.ErrUserExists))
		Expect(c.userName(ctx, other.ID)).To(Equal(other.Name))
	})

	It("says that there is no such user", func(ctx SpecContext) {
		_, err := c.client.RenameUser(ctx, 4711, "nobody")
		Expect(err).To(MatchError(headscale.ErrUserNotFound))
		Expect(c.client.DeleteUser(ctx, 4711)).To(MatchError(headscale.ErrUserNotFound))
		Expect(c.client.DeleteUser(ctx, 4711)).NotTo(MatchError(headscale.ErrUnavailable))
	})

	It("passes on what Headscale says of a name, of which only 0.26 says anything", func(ctx SpecContext) {
		user := c.makeUser(ctx, "user")
		_, createErr := c.client.CreateUser(ctx, headscale.NewUser{Name: "Bad Name!"})
		_, renameErr := c.client.RenameUser(ctx, user.ID, "Even Worse!")
		if c.release != headscaletest.V026 {
			Expect(errors.Join(createErr, renameErr)).NotTo(HaveOccurred())
			return
		}
		expectRefusal(createErr, "creating a user", "invalid character")
		expectRefusal(renameErr, "renaming a user", "invalid character")
	})

	It("does not ask for what cannot be meant", func(ctx SpecContext) {
		_, err := c.client.CreateUser(ctx, headscale.NewUser{})
		Expect(err).To(MatchError(ContainSubstring("name is empty")))
		_, err = c.client.RenameUser(ctx, 1, "")
		Expect(err).To(MatchError(ContainSubstring("name is empty")))
	})
}

// expectRefusal expects Headscale's own words, and no known meaning.
func expectRefusal(err error, doing, words string) {
	GinkgoHelper()
	var refused *headscale.Refusal
	Expect(errors.As(err, &refused)).To(BeTrue(), "%v", err)
	Expect(err.Error()).To(HavePrefix(doing + ": Headscale refused with "))
	Expect(refused.Words).To(ContainSubstring(words))
	Expect(refused.Words).NotTo(BeEmpty())
	Expect(refused.Unwrap()).To(HaveExactElements(headscale.ErrRefused))
	Expect(err).NotTo(MatchError(headscale.ErrUnavailable))
}

func describeNodes(c *contestant) {
	It("lists nodes, whose user they keep from being deleted", func(ctx SpecContext) {
		Expect(c.client.ListNodes(ctx)).To(BeEmpty())
		user := c.makeUser(ctx, "nodes")
		id := c.register(ctx, user.ID)
		nodes, err := c.client.ListNodes(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(nodes).To(HaveLen(1))
		Expect(nodes[0]).To(And(
			HaveField("ID", id), HaveField("Name", "web"), HaveField("UserID", user.ID), HaveField("UserName", user.Name),
			HaveField("Tags", BeEmpty()), HaveField("PreAuthKeyID", uint64(0)), HaveField("GivenName", HavePrefix("web")),
			HaveField("CreatedAt", HaveValue(BeTemporally("~", time.Now(), time.Minute))),
		))
		Expect(c.client.DeleteUser(ctx, user.ID)).To(MatchError(headscale.ErrUserHasNodes))
		Expect(c.userName(ctx, user.ID)).To(Equal(user.Name))

		renamed, err := c.client.RenameUser(ctx, user.ID, user.Name+"-renamed")
		Expect(err).NotTo(HaveOccurred())
		shown := renamed.Name
		if c.release != headscaletest.V026 {
			shown = user.Name // until Headscale restarts
		}
		nodes, err = c.client.ListNodes(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(nodes).To(ConsistOf(And(HaveField("UserID", user.ID), HaveField("UserName", shown))))
	})

	It("shows the tags of a node, whose user it hides from 0.28 on, and keeps until then", func(ctx SpecContext) {
		user := c.makeUser(ctx, "tags")
		if c.version != "" { // a tag that the policy does not know is refused
			_, err := c.client.SetPolicy(ctx, `{"tagOwners": {"tag:web": [], "tag:a": []}}`)
			Expect(err).NotTo(HaveOccurred())
		}
		id := c.register(ctx, user.ID, "tag:web", "tag:a")
		nodes, err := c.client.ListNodes(ctx)
		Expect(err).NotTo(HaveOccurred())
		shownUser := user.ID
		if c.release >= headscaletest.V028 {
			shownUser = headscale.TaggedDevicesID
		}
		Expect(nodes).To(ContainElement(And(
			HaveField("ID", id), HaveField("UserID", shownUser), HaveField("Tags", []string{"tag:a", "tag:web"}),
		)))
		if err = c.client.DeleteUser(ctx, user.ID); c.release >= headscaletest.V029 {
			Expect(err).NotTo(HaveOccurred(), "the node belongs to nobody")
		} else {
			Expect(err).To(MatchError(headscale.ErrUserHasNodes))
		}
	})
}

func describeChangesOfNodes(c *contestant) {
	It("approves the routes that a node announces, and no others", func(ctx SpecContext) {
		user := c.makeUser(ctx, "routes")
		id := c.registerRouter(ctx, user.ID, "10.1.0.0/24", "10.2.0.0/24", "0.0.0.0/0", "::/0")
		node := func(g Gomega) headscale.Node {
			node, err := c.node(ctx, id)
			g.Expect(err).NotTo(HaveOccurred())
			return node
		}
		Eventually(node).WithContext(ctx).Should(And(HaveField("Online", true), HaveField("GivenName", HavePrefix("router")), HaveField("Addresses", ConsistOf(MatchRegexp(`^100\.64\.`), MatchRegexp(`^fd7a:`))),
			HaveField("AvailableRoutes", ConsistOf("10.1.0.0/24", "10.2.0.0/24", "0.0.0.0/0", "::/0")), HaveField("ApprovedRoutes", BeEmpty())))

		Expect(c.client.SetApprovedRoutes(ctx, id, []string{"10.1.0.0/24"})).To(Succeed())
		Eventually(node).WithContext(ctx).Should(HaveField("ApprovedRoutes", ConsistOf("10.1.0.0/24")))
		Expect(c.client.SetApprovedRoutes(ctx, id, []string{"10.2.0.0/24", "0.0.0.0/0"})).To(Succeed(), "the list is replaced, and either route of an exit node stands for both")
		Eventually(node).WithContext(ctx).Should(HaveField("ApprovedRoutes", ConsistOf("10.2.0.0/24", "0.0.0.0/0", "::/0")))
		Expect(c.client.SetApprovedRoutes(ctx, id, nil)).To(Succeed())
		Eventually(node).WithContext(ctx).Should(HaveField("ApprovedRoutes", BeEmpty()))
		Expect(node(Default)).To(HaveField("AvailableRoutes", HaveLen(4)))

		err := c.client.SetApprovedRoutes(ctx, id, []string{"10.1.0.0"})
		expectRefusal(err, "approving routes of a node", "10.1.0.0")
	})

	It("expires a node, and deletes it", func(ctx SpecContext) {
		user := c.makeUser(ctx, "expired")
		id, other := c.register(ctx, user.ID), c.register(ctx, user.ID)
		Expect(c.client.ExpireNode(ctx, id)).To(Succeed())
		Expect(c.node(ctx, id)).To(HaveField("Expiry", HaveValue(BeTemporally("~", time.Now(), time.Minute))))
		Expect(c.node(ctx, other)).To(HaveField("Expiry", BeNil()), "nobody else's")
		Expect(c.client.DeleteNode(ctx, id)).To(Succeed())
		_, err := c.node(ctx, id)
		Expect(err).To(MatchError(ContainSubstring("no node")))
		Expect(c.node(ctx, other)).To(HaveField("ID", other))
	})

	It("says that there is no such node", func(ctx SpecContext) {
		for _, err := range []error{c.client.SetApprovedRoutes(ctx, 4711, nil), c.client.ExpireNode(ctx, 4711), c.client.DeleteNode(ctx, 4711)} {
			Expect(err).To(MatchError(headscale.ErrNodeNotFound))
			Expect(err).NotTo(MatchError(headscale.ErrUnavailable))
		}
	})
}

// preAuthKey is the key of an id in the list of those of users; empty: there is none.
func (c *contestant) preAuthKey(ctx context.Context, id uint64, users ...uint64) headscale.PreAuthKey {
	GinkgoHelper()
	keys, err := c.client.ListPreAuthKeys(ctx, users)
	Expect(err).NotTo(HaveOccurred())
	for _, key := range keys {
		if key.ID == id {
			return key
		}
	}
	return headscale.PreAuthKey{}
}

func describePreAuthKeys(c *contestant) {
	wholeText := `^hskey-auth-[\w-]{12}-[\w-]{64}$`
	listedText := `^hskey-auth-[\w-]{12}-\*\*\*$`
	if c.release < headscaletest.V028 {
		wholeText = `^[0-9a-f]{48}$`
		listedText = wholeText
	}

	It("makes, lists and expires a key", func(ctx SpecContext) {
		user, other := c.makeUser(ctx, "keys"), c.makeUser(ctx, "others")
		expiration := time.Date(2100, 1, 2, 3, 4, 5, 678_901_234, time.FixedZone("", 3600))
		made, err := c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{
			UserID: user.ID, Reusable: true, Ephemeral: true, Tags: []string{"tag:web", "tag:a"}, Expiration: expiration,
		})
		Expect(err).NotTo(HaveOccurred())
		Expect(made.Key.Reveal()).To(MatchRegexp(wholeText))
		neighbour, err := c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: other.ID, Expiration: tomorrow()})
		Expect(err).NotTo(HaveOccurred())

		key := c.preAuthKey(ctx, made.ID, 4711, user.ID, other.ID)
		Expect(key.Key.Reveal()).To(MatchRegexp(listedText))
		Expect(key.CreatedAt).To(HaveValue(BeTemporally("~", time.Now(), time.Minute)))
		key.Key, key.CreatedAt = headscale.Key{}, nil
		at := expiration.UTC().Truncate(time.Microsecond)
		Expect(key).To(Equal(headscale.PreAuthKey{
			ID: made.ID, UserID: user.ID, Reusable: true, Ephemeral: true, Tags: []string{"tag:a", "tag:web"}, Expiration: &at,
		}))
		Expect(c.preAuthKey(ctx, neighbour.ID, other.ID)).To(And(HaveField("Reusable", false), HaveField("Ephemeral", false), HaveField("Used", false)))

		made.UserID = user.ID
		Expect(c.client.ExpirePreAuthKey(ctx, made)).To(Succeed())
		Expect(c.client.ExpirePreAuthKey(ctx, made)).To(Succeed(), "a key that is expired already")
		Expect(c.preAuthKey(ctx, made.ID, user.ID).Expiration).To(HaveValue(BeTemporally("~", time.Now(), time.Minute)))
		Expect(c.preAuthKey(ctx, neighbour.ID, other.ID).Expiration).To(HaveValue(BeTemporally(">", time.Now())), "nobody else's")
	})
}

func describeRefusedPreAuthKeys(c *contestant) {
	It("says of a key without a user where it needs a later release", func(ctx SpecContext) {
		made, err := c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{Tags: []string{"tag:web"}, Expiration: tomorrow()})
		if c.release < headscaletest.V028 {
			Expect(err).To(MatchError(headscale.ErrUnsupported))
			Expect(err).To(MatchError(ContainSubstring("needs Headscale 0.28")))
			return
		}
		Expect(err).NotTo(HaveOccurred())
		Expect(c.preAuthKey(ctx, made.ID)).To(And(HaveField("UserID", uint64(0)), HaveField("Tags", []string{"tag:web"})))
		_, err = c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{Expiration: tomorrow()})
		expectRefusal(err, "creating a pre-auth key", "tagged or owned")
	})

	It("says what is wrong with a key", func(ctx SpecContext) {
		user := c.makeUser(ctx, "wrong")
		_, err := c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: 4711, Expiration: tomorrow()})
		Expect(err).To(MatchError(headscale.ErrUserNotFound))
		Expect(err).NotTo(MatchError(headscale.ErrUnsupported))
		_, err = c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: user.ID, Tags: []string{"web"}, Expiration: tomorrow()})
		expectRefusal(err, "creating a pre-auth key", "tag")
		_, err = c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: user.ID})
		Expect(err).To(MatchError(ContainSubstring("expiration is not set")))
		Expect(c.client.ExpirePreAuthKey(ctx, headscale.PreAuthKey{UserID: user.ID})).To(MatchError(ContainSubstring("no ID")))
	})
}

func describeTheEndOfPreAuthKeys(c *contestant) {
	It("expires nothing else for a key that is unknown, not even one of the same number as its user", func(ctx SpecContext) {
		user := c.makeUser(ctx, "unknown")
		var victim headscale.PreAuthKey
		for victim.ID < user.ID {
			var err error
			victim, err = c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: user.ID, Expiration: tomorrow()})
			Expect(err).NotTo(HaveOccurred())
		}
		unknown := headscale.PreAuthKey{ID: 4711, UserID: user.ID, Key: headscale.NewKey(strings.Repeat("0f", 24))}
		err := c.client.ExpirePreAuthKey(ctx, unknown)
		if c.release == headscaletest.V028 || c.release == headscaletest.V029 {
			Expect(err).NotTo(HaveOccurred(), "these releases do not say")
		} else {
			Expect(err).To(MatchError(headscale.ErrPreAuthKeyNotFound))
		}
		keys, err := c.client.ListPreAuthKeys(ctx, []uint64{user.ID})
		Expect(err).NotTo(HaveOccurred())
		Expect(keys).To(ContainElement(HaveField("ID", victim.ID)))
		for _, key := range keys {
			if key.UserID == user.ID {
				Expect(key.Expiration).To(HaveValue(BeTemporally(">", time.Now())))
			}
		}
	})

	It("removes a key for good", func(ctx SpecContext) {
		user := c.makeUser(ctx, "gone")
		made, err := c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: user.ID, Expiration: tomorrow()})
		Expect(err).NotTo(HaveOccurred())
		err = c.client.DeletePreAuthKey(ctx, made.ID)
		if c.release < headscaletest.V028 {
			Expect(err).To(MatchError(headscale.ErrUnsupported))
			return
		}
		Expect(err).NotTo(HaveOccurred())
		Expect(c.preAuthKey(ctx, made.ID)).To(BeZero())
		if err = c.client.DeletePreAuthKey(ctx, made.ID); c.release == headscaletest.V030 {
			Expect(err).To(MatchError(headscale.ErrPreAuthKeyNotFound))
		} else {
			Expect(err).NotTo(HaveOccurred())
		}
	})

	It("loses the keys of a user with it, and with v0.28.0 all others", func(ctx SpecContext) {
		user, other := c.makeUser(ctx, "lost"), c.makeUser(ctx, "kept")
		lost, err := c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: user.ID, Expiration: tomorrow()})
		Expect(err).NotTo(HaveOccurred())
		kept, err := c.client.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: other.ID, Expiration: tomorrow()})
		Expect(err).NotTo(HaveOccurred())
		Expect(c.client.DeleteUser(ctx, user.ID)).To(Succeed())
		Expect(c.preAuthKey(ctx, lost.ID, user.ID, other.ID)).To(BeZero())
		if c.release == headscaletest.V028 {
			Expect(c.preAuthKey(ctx, kept.ID)).To(BeZero())
		} else {
			Expect(c.preAuthKey(ctx, kept.ID, other.ID).ID).To(Equal(kept.ID))
		}
	})
}

// policyText has what a text loses first: comments, escapes, spaces and order.
const policyText = "// Über alles: <b> & \"quotes\"\n{\n\t\"acls\": [ // trailing comma\n\t\t{\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [\"*:*\"]},\n\t],\n}\n"

func describePolicy(c *contestant) {
	It("says that there is no policy, and reads back what is set, byte for byte", func(ctx SpecContext) {
		_, err := c.client.GetPolicy(ctx)
		Expect(err).To(MatchError(headscale.ErrNoPolicy))
		Expect(err).NotTo(MatchError(headscale.ErrUnavailable))

		set, err := c.client.SetPolicy(ctx, policyText)
		Expect(err).NotTo(HaveOccurred())
		Expect(set.Text).To(Equal(policyText))
		Expect(set.UpdatedAt).To(BeTemporally("~", time.Now(), time.Minute))
		policy, err := c.client.GetPolicy(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(policy.Text).To(Equal(policyText))
		Expect(policy.UpdatedAt).To(BeTemporally("~", set.UpdatedAt, time.Millisecond))
	})

	It("passes on what Headscale says of a policy, and the old one stays", func(ctx SpecContext) {
		_, err := c.client.SetPolicy(ctx, policyText)
		Expect(err).NotTo(HaveOccurred())
		_, err = c.client.SetPolicy(ctx, "no policy")
		expectRefusal(err, "setting the policy", "")
		policy, err := c.client.GetPolicy(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(policy.Text).To(Equal(policyText))
	})

	It("takes a policy of a MiB, and none of 4", func(ctx SpecContext) {
		line := "// \"tagOwners\": <&>\t\\ é\n"
		large := strings.Repeat(line, 1<<20/len(line)) + policyText
		_, err := c.client.SetPolicy(ctx, large)
		Expect(err).NotTo(HaveOccurred())
		policy, err := c.client.GetPolicy(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(strings.Compare(policy.Text, large)).To(BeZero(), "no diff of a MiB")
		_, err = c.client.SetPolicy(ctx, strings.Repeat("/", 4<<20))
		Expect(err).To(MatchError(headscale.ErrTooLarge))
		_, err = c.client.SetPolicy(ctx, strings.Repeat(line, (4<<20-100_000)/len(line))+policyText)
		Expect(err).NotTo(HaveOccurred())
		_, err = c.client.GetPolicy(ctx)
		Expect(err).NotTo(HaveOccurred())
	})

	It("takes an empty policy, which is none and allows everything", func(ctx SpecContext) {
		_, err := c.client.SetPolicy(ctx, "")
		Expect(err).NotTo(HaveOccurred())
		policy, err := c.client.GetPolicy(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(policy.Text).To(BeEmpty())
		Expect(policy.UpdatedAt).NotTo(BeZero())
	})
}

var _ = Describe("A Headscale that reads its policy from a file", func() {
	for _, c := range contestants() {
		It("takes no other: "+c.String(), func(ctx SpecContext) {
			if c.version != "" {
				c.startReal(ctx, map[string]any{"policy": map[string]any{"mode": "file"}})
			} else {
				server := startFake(socketPath(), c.release)
				server.Database().ReadPolicyFromFile(true)
				c.socket = server.SocketPath()
			}
			client := newClient(c.socket)
			_, err := client.SetPolicy(ctx, policyText)
			Expect(err).To(MatchError(headscale.ErrPolicyMode))
			_, err = client.GetPolicy(ctx)
			Expect(err).To(HaveOccurred())
		})
	}
})
