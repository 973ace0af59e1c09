package headscaletest_test

import (
	"testing"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

// reply is a request and the answer that a real server of the development branch for v0.30 gave, but for
// the words of refusals.
type reply struct {
	method, path, body string
	status             int
	answer             string
}

// check compares the answers, which may be patterns, in their order.
func check(t *testing.T, server *headscaletest.Server, replies []reply) {
	t.Helper()
	for _, want := range replies {
		g := NewWithT(t)
		status, contentType, answer := callHTTP(t, server, want.method, want.path, want.body)
		about := want.method + " " + want.path + " " + want.body
		g.Expect(answer).To(MatchRegexp("^"+want.answer+"\n$"), about)
		g.Expect(status).To(Equal(want.status), about)
		if want.status == 200 {
			g.Expect(contentType).To(Equal("application/json"), about)
		} else {
			g.Expect(contentType).To(Equal("application/problem+json"), about)
		}
	}
}

const (
	atNoonText = `"2026-11-23T12:00:00.992923272Z"`
	aliceText  = `{"id":"1","name":"alice","createdAt":` + atNoonText + `,"displayName":"Alice","email":"alice@example.com",` +
		`"providerId":"","provider":"","profilePicUrl":"https://example.com/a"}`
	renamedText = `{"id":"1","name":"a.b","createdAt":` + atNoonText + `,"displayName":"Alice","email":"alice@example.com",` +
		`"providerId":"","provider":"","profilePicUrl":"https://example.com/a"}`
)

func TestUsersOfHeadscale030(t *testing.T) {
	server := start(t, headscaletest.V030, atNoon)
	check(t, server, []reply{
		{"GET", "/api/v1/user", "", 200, `{"users":\[\]}`},
		{"POST", "/api/v1/user", `{"name":"alice","displayName":"Alice","email":"alice@example.com","pictureUrl":"https://example.com/a"}`, 200, `{"user":` + aliceText + `}`},
		{"POST", "/api/v1/user", `{"name":"alice"}`, 409, `{"title":"Conflict","status":409,"detail":"user already exists"}`},
		{"POST", "/api/v1/user", `{"name":"bob","admin":true}`, 422, `{"title":"Unprocessable Entity","status":422,"detail":"validation failed","errors":\[{"message":"unexpected property","location":"body.admin"}\]}`},
		{"POST", "/api/v1/user", `{"name":"Bad Name!"}`, 200, `{"user":{"id":"2","name":"Bad Name!",.*}}`},
		{"POST", "/api/v1/user", `{"name":""}`, 200, `{"user":{"id":"3","name":"3",.*}}`},
		{"POST", "/api/v1/user/1/rename/a.b", "", 200, `{"user":` + renamedText + `}`},
		{"POST", "/api/v1/user/9/rename/x", "", 404, `{"title":"Not Found","status":404,"detail":"renaming user","errors":\[{"message":"user not found"}\]}`},
		{"POST", "/api/v1/user/x/rename/x", "", 400, `{"title":"Bad Request","status":400,"detail":"invalid user id","errors":.*}`},
		{"DELETE", "/api/v1/user/2", "", 200, `{}`},
		{"DELETE", "/api/v1/user/3", "", 200, `{}`},
		{"DELETE", "/api/v1/user/3", "", 404, `{"title":"Not Found","status":404,"detail":"deleting user","errors":\[{"message":"user not found"}\]}`},
		{"DELETE", "/api/v1/user/x", "", 400, `{"title":"Bad Request",.*}`},
		{"GET", "/api/v1/user", "", 200, `{"users":\[` + renamedText + `\]}`},
	})
	server.Database().InsertNode(headscaletest.Node{Name: "web", UserID: 1})
	check(t, server, []reply{{"DELETE", "/api/v1/user/1", "", 400, `{"title":"Bad Request","status":400,"detail":"deleting user","errors":\[{"message":"user not empty: node\(s\) found"}\]}`}})
}

func TestNodesOfHeadscale030(t *testing.T) {
	server := start(t, headscaletest.V030, atNoon)
	check(t, server, []reply{{"GET", "/api/v1/node", "", 200, `{"nodes":\[\]}`}})
	user := server.Database().InsertUser(headscaletest.User{Name: "alice", CreatedAt: noon})
	key := server.Database().InsertPreAuthKey(headscaletest.PreAuthKey{UserID: user.ID, Prefix: "0123456789ab", Text: "text"})
	server.Database().InsertNode(headscaletest.Node{Name: "web", UserID: user.ID, PreAuthKeyID: key.ID, CreatedAt: noon})
	server.Database().InsertNode(headscaletest.Node{Name: "db", UserID: user.ID, Tags: []string{"tag:db"}, CreatedAt: noon})
	check(t, server, []reply{{"GET", "/api/v1/node", "", 200, `{"nodes":\[` +
		`{"id":"1","ipAddresses":\[\],"name":"web","user":{"id":"1","name":"alice",.*},"lastSeen":null,"expiry":null,"preAuthKey":{.*"id":"1",.*},` +
		`"createdAt":` + atNoonText + `,"givenName":"web","online":false,"approvedRoutes":\[\],"availableRoutes":\[\],"tags":\[\]},` +
		`{"id":"2",.*"name":"db","user":{"id":"2147455555","name":"tagged-devices",.*},.*"preAuthKey":null,.*"tags":\["tag:db"\]}\]}`}})
}

func TestChangesOfNodesOfHeadscale030(t *testing.T) {
	server := start(t, headscaletest.V030, atNoon)
	server.Database().InsertNode(headscaletest.Node{Name: "router", Tags: []string{"tag:a"}, AvailableRoutes: []string{"10.0.0.0/24", "::/0"}, CreatedAt: noon})
	const noNode = `{"title":"Not Found","status":404,"detail":"node not found"}`
	check(t, server, []reply{
		{"POST", "/api/v1/node/1/approve_routes", `{"routes":["10.0.0.0/24","0.0.0.0/0"]}`, 200, `{"node":{"id":"1",.*"approvedRoutes":\["0.0.0.0/0","10.0.0.0/24","::/0"\],"availableRoutes":\["10.0.0.0/24","::/0"\],.*}}`},
		{"POST", "/api/v1/node/1/approve_routes", `{"routes":["10.0.0.0"]}`, 400, `{"title":"Bad Request",.*"parsing route: .*}`},
		{"POST", "/api/v1/node/1/approve_routes", `{"route":[]}`, 422, `{"title":"Unprocessable Entity",.*}`},
		{"POST", "/api/v1/node/9/approve_routes", `{"routes":[]}`, 404, `{"title":"Not Found","status":404,"detail":"setting approved routes","errors":\[{"message":"node no longer exists in NodeStore"}\]}`},
		{"POST", "/api/v1/node/1/approve_routes", `{}`, 200, `{"node":{.*"approvedRoutes":\[\],.*}}`},
		{"POST", "/api/v1/node/1/expire", "", 200, `{"node":{.*"expiry":` + atNoonText + `,.*}}`},
		{"POST", "/api/v1/node/9/expire", "", 404, `{"title":"Not Found","status":404,"detail":"expiring node","errors":.*}`},
		{"DELETE", "/api/v1/node/1", "", 200, `{}`},
		{"DELETE", "/api/v1/node/1", "", 404, noNode},
		{"DELETE", "/api/v1/node/x", "", 400, `{"title":"Bad Request",.*}`},
		{"POST", "/api/v1/node/x/expire", "", 400, `{"title":"Bad Request",.*}`},
		{"POST", "/api/v1/node/x/approve_routes", "{}", 400, `{"title":"Bad Request",.*}`},
		{"GET", "/api/v1/node", "", 200, `{"nodes":\[\]}`},
	})
}

func TestPreAuthKeysOfHeadscale030(t *testing.T) {
	server := start(t, headscaletest.V030, atNoon)
	server.Database().InsertUser(headscaletest.User{Name: "alice", CreatedAt: noon})
	const rest = `"reusable":true,"ephemeral":true,"used":false,"expiration":"2027-01-01T00:00:00.123456Z","createdAt":` + atNoonText + `,"aclTags":\["tag:web"\]}`
	check(t, server, []reply{
		{"GET", "/api/v1/preauthkey", "", 200, `{"preAuthKeys":\[\]}`},
		{
			"POST", "/api/v1/preauthkey", `{"user":"1","reusable":true,"ephemeral":true,"expiration":"2027-01-01T00:00:00.123456Z","aclTags":["tag:web"]}`,
			200, `{"preAuthKey":{"user":{"id":"1",.*},"id":"1","key":"hskey-auth-[0-9a-f]{12}-[0-9a-f]{64}",` + rest + `}`,
		},
		{"GET", "/api/v1/preauthkey", "", 200, `{"preAuthKeys":\[{"user":{"id":"1",.*},"id":"1","key":"hskey-auth-[0-9a-f]{12}-\*\*\*",` + rest + `\]}`},
		{"POST", "/api/v1/preauthkey", `{"aclTags":["tag:web"]}`, 200, `{"preAuthKey":{"user":null,"id":"2",.*"expiration":"0001-01-01T00:00:00Z",.*}}`},
		{"POST", "/api/v1/preauthkey", `{"user":"9"}`, 404, `{"title":"Not Found",.*"user not found".*}`},
		{"POST", "/api/v1/preauthkey", `{"user":"1","aclTags":["web"]}`, 400, `{"title":"Bad Request",.*"tag must start.*}`},
		{"POST", "/api/v1/preauthkey", `{}`, 400, `{"title":"Bad Request",.*"auth-key must be either tagged or owned by user".*}`},
		{"POST", "/api/v1/preauthkey/expire", `{"id":"1"}`, 200, `{}`},
		{"POST", "/api/v1/preauthkey/expire", `{"id":"9"}`, 404, `{"title":"Not Found",.*}`},
		{"POST", "/api/v1/preauthkey/expire", `{"id":"1","user":"1"}`, 422, `{"title":"Unprocessable Entity",.*"body.user".*}`},
		{"POST", "/api/v1/preauthkey/expire", `{"id":1}`, 422, `{"title":"Unprocessable Entity",.*}`},
		{"DELETE", "/api/v1/preauthkey?id=1", "", 200, `{}`},
		{"DELETE", "/api/v1/preauthkey?id=1", "", 404, `{"title":"Not Found",.*}`},
		{"DELETE", "/api/v1/preauthkey?id=x", "", 400, `{"title":"Bad Request",.*}`},
	})
	NewWithT(t).Expect(server.Texts()).To(HaveLen(2))
}

func TestPolicyOfHeadscale030(t *testing.T) {
	server := start(t, headscaletest.V030, atNoon)
	check(t, server, []reply{
		{"GET", "/api/v1/policy", "", 500, `{"title":"Internal Server Error","status":500,"detail":"loading ACL from database","errors":\[{"message":".*acl policy not found"}\]}`},
		{"PUT", "/api/v1/policy", `{"policy":"// x\n{}"}`, 200, `{"policy":"// x\\n{}","updatedAt":` + atNoonText + `}`},
		{"PUT", "/api/v1/policy", `{"policy":"x"}`, 400, `{"title":"Bad Request","status":400,"detail":"setting policy",.*}`},
		{"PUT", "/api/v1/policy", `{"hujson":"{}"}`, 422, `{"title":"Unprocessable Entity",.*}`},
		{"GET", "/api/v1/policy", "", 200, `{"policy":"// x\\n{}","updatedAt":` + atNoonText + `}`},
		{"PUT", "/api/v1/policy", `{"policy":""}`, 200, `{"policy":"","updatedAt":` + atNoonText + `}`},
	})
	server.Database().ReadPolicyFromFile(true)
	check(t, server, []reply{{"PUT", "/api/v1/policy", `{"policy":"{}"}`, 400, `{"title":"Bad Request",.*"update is disabled for modes other than 'database'".*}`}})
	_, set := server.Database().Policy()
	NewWithT(t).Expect(set).To(BeTrue())
}

// What gRPC answers differs in its codes only; the rest is for the client's own specs, which run
// against real servers, too.
func TestCodesOfReleasesUpTo029(t *testing.T) {
	for release, taken := range map[headscaletest.Release]codes.Code{
		headscaletest.V026: codes.Unknown, headscaletest.V027: codes.Internal, headscaletest.V028: codes.Internal, headscaletest.V029: codes.Internal,
	} {
		t.Run(release.String(), func(t *testing.T) {
			g := NewWithT(t)
			api, ctx := dialGRPC(t, start(t, release)), t.Context()
			code := func(_ any, err error) codes.Code { return status.Code(err) }
			g.Expect(code(api.CreateUser(ctx, &v1.CreateUserRequest{Name: "alice"}))).To(Equal(codes.OK))
			g.Expect(code(api.CreateUser(ctx, &v1.CreateUserRequest{Name: "alice"}))).To(Equal(taken))
			g.Expect(code(api.RenameUser(ctx, &v1.RenameUserRequest{OldId: 9, NewName: "bob"}))).To(Equal(codes.Unknown))
			g.Expect(code(api.DeleteUser(ctx, &v1.DeleteUserRequest{Id: 9}))).To(Equal(codes.Unknown))
			g.Expect(code(api.GetPolicy(ctx, &v1.GetPolicyRequest{}))).To(Equal(codes.Unknown))
			g.Expect(code(api.SetPolicy(ctx, &v1.SetPolicyRequest{Policy: "x"}))).To(Equal(codes.Unknown))
			g.Expect(code(api.CreatePreAuthKey(ctx, &v1.CreatePreAuthKeyRequest{User: 1, AclTags: []string{"web"}}))).To(Equal(codes.InvalidArgument))
			deleted := code(api.DeletePreAuthKey(ctx, &v1.DeletePreAuthKeyRequest{Id: 9}))
			if release < headscaletest.V028 {
				g.Expect(deleted).To(Equal(codes.Unimplemented))
			} else {
				g.Expect(deleted).To(Equal(codes.OK))
			}
		})
	}
}

func TestNamesThatHeadscale026Refuses(t *testing.T) {
	g := NewWithT(t)
	api := dialGRPC(t, start(t, headscaletest.V026))
	for name, words := range map[string]string{
		"": "at least 2", "a": "at least 2", "1a": "start with a number", "a b": "invalid character: ' '", "a@b@c": "more than one '@'",
	} {
		_, err := api.CreateUser(t.Context(), &v1.CreateUserRequest{Name: name})
		g.Expect(err).To(MatchError(ContainSubstring(words)), "%q", name)
	}
	_, err := api.CreateUser(t.Context(), &v1.CreateUserRequest{Name: "Ünal-1.x_y@z"})
	g.Expect(err).NotTo(HaveOccurred())
}

func TestADatabaseThatIsRestoredGivesIDsOutAgain(t *testing.T) {
	g := NewWithT(t)
	database := headscaletest.NewDatabase()
	first := database.InsertUser(headscaletest.User{Name: "first"})
	backup := database.Clone()
	lost := database.InsertUser(headscaletest.User{Name: "lost", CreatedAt: noon})
	g.Expect(database.InsertPreAuthKey(headscaletest.PreAuthKey{UserID: lost.ID}).ID).To(Equal(uint64(1)))
	g.Expect(database.UsePreAuthKey(1)).To(BeTrue())
	g.Expect(database.UsePreAuthKey(2)).To(BeFalse())
	g.Expect(database.PreAuthKeys()).To(ConsistOf(HaveField("Used", true)))

	stranger := backup.InsertUser(headscaletest.User{Name: "stranger", CreatedAt: noon.Add(time.Hour)})
	g.Expect(stranger.ID).To(Equal(lost.ID))
	g.Expect(backup.Users()).To(Equal([]headscaletest.User{first, stranger}))
	g.Expect(database.Users()).To(Equal([]headscaletest.User{first, lost}))
	g.Expect(backup.PreAuthKeys()).To(BeEmpty())

	g.Expect(database.RemoveUser(lost.ID)).To(BeTrue())
	g.Expect(database.RemoveUser(lost.ID)).To(BeFalse())
	g.Expect(database.InsertUser(headscaletest.User{}).ID).To(Equal(uint64(3)), "not given out again otherwise")
	node := database.InsertNode(headscaletest.Node{UserID: 1})
	g.Expect(database.RemoveNode(node.ID)).To(BeTrue())
	g.Expect(database.RemoveNode(node.ID)).To(BeFalse())
}
