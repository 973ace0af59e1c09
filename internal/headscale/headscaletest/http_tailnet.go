package headscaletest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// handleTailnet registers the paths of all resources but API keys.
func handleTailnet(handle func(pattern string, operation Operation, doing string, do func(*Server, *http.Request) (any, error))) {
	handle("GET /api/v1/user", ListUsers, "listing users", listUsers)
	handle("POST /api/v1/user", CreateUser, "creating user", createUser)
	handle("POST /api/v1/user/{id}/rename/{name}", RenameUser, "renaming user", renameUser)
	handle("DELETE /api/v1/user/{id}", DeleteUser, "deleting user", deleteUser)
	handle("GET /api/v1/node", ListNodes, "listing nodes", listNodes)
	handle("POST /api/v1/node/{id}/approve_routes", ApproveRoutes, "setting approved routes", approveRoutes)
	handle("POST /api/v1/node/{id}/expire", ExpireNode, "expiring node", expireNode)
	handle("DELETE /api/v1/node/{id}", DeleteNode, "deleting node", deleteNode)
	handle("GET /api/v1/preauthkey", ListPreAuthKeys, "listing pre-auth keys", listPreAuthKeys)
	handle("POST /api/v1/preauthkey", CreatePreAuthKey, "creating pre-auth key", createPreAuthKey)
	handle("POST /api/v1/preauthkey/expire", ExpirePreAuthKey, "expiring pre-auth key", expirePreAuthKey)
	handle("DELETE /api/v1/preauthkey", DeletePreAuthKey, "deleting pre-auth key", deletePreAuthKey)
	handle("GET /api/v1/policy", GetPolicy, "loading ACL from database", getPolicy)
	handle("PUT /api/v1/policy", SetPolicy, "setting policy", setPolicy)
}

// id is a number in JSON: a text.
type id uint64

// MarshalText writes the number.
func (i id) MarshalText() ([]byte, error) { return strconv.AppendUint(nil, uint64(i), 10), nil }

// UnmarshalText reads the number.
func (i *id) UnmarshalText(text []byte) error {
	number, err := strconv.ParseUint(string(text), 10, 64)
	*i = id(number)
	return err
}

type jsonUser struct {
	ID          id        `json:"id"`
	Name        string    `json:"name"`
	CreatedAt   time.Time `json:"createdAt"`
	DisplayName string    `json:"displayName"`
	Email       string    `json:"email"`
	ProviderID  string    `json:"providerId"`
	Provider    string    `json:"provider"`
	PictureURL  string    `json:"profilePicUrl"`
}

func newJSONUser(user User) *jsonUser {
	return &jsonUser{
		ID: id(user.ID), Name: user.Name, CreatedAt: user.CreatedAt, DisplayName: user.DisplayName, Email: user.Email,
		ProviderID: user.ProviderID, Provider: user.Provider, PictureURL: user.PictureURL,
	}
}

func listUsers(s *Server, _ *http.Request) (any, error) {
	users := []*jsonUser{}
	for _, user := range s.Database().shownUsers(V030) {
		users = append(users, newJSONUser(user))
	}
	return map[string]any{"users": users}, nil
}

func createUser(s *Server, r *http.Request) (any, error) {
	var request struct {
		Name        string `json:"name"`
		DisplayName string `json:"displayName"`
		Email       string `json:"email"`
		PictureURL  string `json:"pictureUrl"`
	}
	if err := decodeStrictly(r, &request); err != nil {
		return nil, err
	}
	user, err := s.Database().createUser(V030, User{
		Name: request.Name, DisplayName: request.DisplayName, Email: request.Email, PictureURL: request.PictureURL, CreatedAt: s.now(),
	})
	return map[string]any{"user": newJSONUser(user)}, err
}

func renameUser(s *Server, r *http.Request) (any, error) {
	number, err := pathID(r)
	if err != nil {
		return nil, err
	}
	user, err := s.Database().renameUser(V030, number, r.PathValue("name"))
	return map[string]any{"user": newJSONUser(user)}, err
}

func deleteUser(s *Server, r *http.Request) (any, error) {
	number, err := pathID(r)
	if err != nil {
		return nil, err
	}
	return map[string]any{}, s.Database().deleteUser(V030, number)
}

func pathID(r *http.Request) (uint64, error) {
	number, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0, newProblem(http.StatusBadRequest, "invalid user id", problemError{Message: err.Error()})
	}
	return number, nil
}

type jsonNode struct {
	ID              id              `json:"id"`
	Addresses       []string        `json:"ipAddresses"`
	Name            string          `json:"name"`
	User            *jsonUser       `json:"user"`
	LastSeen        *time.Time      `json:"lastSeen"`
	Expiry          *time.Time      `json:"expiry"`
	PreAuthKey      *jsonPreAuthKey `json:"preAuthKey"`
	CreatedAt       time.Time       `json:"createdAt"`
	GivenName       string          `json:"givenName"`
	Online          bool            `json:"online"`
	ApprovedRoutes  []string        `json:"approvedRoutes"`
	AvailableRoutes []string        `json:"availableRoutes"`
	Tags            []string        `json:"tags"`
}

func newJSONNode(shown shownNode) jsonNode {
	node := jsonNode{
		ID: id(shown.ID), Name: shown.Name, GivenName: shown.Name, User: newJSONUser(shown.user), CreatedAt: shown.CreatedAt,
		Tags: listOf(shown.Tags), Addresses: listOf(shown.Addresses), Online: shown.Online, LastSeen: shown.LastSeen, Expiry: shown.Expiry,
		ApprovedRoutes: listOf(shown.ApprovedRoutes), AvailableRoutes: listOf(shown.AvailableRoutes),
	}
	if shown.key != nil {
		node.PreAuthKey = newJSONPreAuthKey(shownPreAuthKey{PreAuthKey: *shown.key})
	}
	return node
}

func listNodes(s *Server, _ *http.Request) (any, error) {
	nodes := []jsonNode{}
	for _, shown := range s.Database().shownNodes(V030) {
		nodes = append(nodes, newJSONNode(shown))
	}
	return map[string]any{"nodes": nodes}, nil
}

// nodeOf is the answer to a change of a node.
func nodeOf(s *Server, number uint64) any {
	for _, shown := range s.Database().shownNodes(V030) {
		if shown.ID == number {
			return map[string]any{"node": newJSONNode(shown)}
		}
	}
	return nil
}

func approveRoutes(s *Server, r *http.Request) (any, error) {
	var request struct {
		Routes []string `json:"routes"`
	}
	number, err := pathID(r)
	if err == nil {
		err = decodeStrictly(r, &request)
	}
	if err != nil {
		return nil, err
	}
	err = s.Database().approveRoutes(V030, number, request.Routes)
	return nodeOf(s, number), err
}

func expireNode(s *Server, r *http.Request) (any, error) {
	number, err := pathID(r)
	if err != nil {
		return nil, err
	}
	err = s.Database().expireNode(V030, number, s.now())
	return nodeOf(s, number), err
}

func deleteNode(s *Server, r *http.Request) (any, error) {
	number, err := pathID(r)
	if err != nil {
		return nil, err
	}
	err = s.Database().deleteNode(V030, number)
	if err != nil {
		return nil, &problem{Title: http.StatusText(http.StatusNotFound), Status: http.StatusNotFound, Detail: err.Error()}
	}
	return map[string]any{}, nil
}

type jsonPreAuthKey struct {
	User       *jsonUser `json:"user"`
	ID         id        `json:"id"`
	Key        string    `json:"key"`
	Reusable   bool      `json:"reusable"`
	Ephemeral  bool      `json:"ephemeral"`
	Used       bool      `json:"used"`
	Expiration time.Time `json:"expiration"`
	CreatedAt  time.Time `json:"createdAt"`
	Tags       []string  `json:"aclTags"`
}

func newJSONPreAuthKey(key shownPreAuthKey) *jsonPreAuthKey {
	shown := &jsonPreAuthKey{
		ID: id(key.ID), Key: key.Text, Reusable: key.Reusable, Ephemeral: key.Ephemeral, Used: key.Used,
		Expiration: key.Expiration, CreatedAt: key.CreatedAt, Tags: listOf(key.Tags),
	}
	if key.user != nil {
		shown.User = newJSONUser(*key.user)
	}
	return shown
}

// listOf is a list in JSON, an empty one too.
func listOf(texts []string) []string { return append([]string{}, texts...) }

func listPreAuthKeys(s *Server, _ *http.Request) (any, error) {
	listed, err := s.Database().shownPreAuthKeys(V030, 0)
	keys := []*jsonPreAuthKey{}
	for _, key := range listed {
		keys = append(keys, newJSONPreAuthKey(key))
	}
	return map[string]any{"preAuthKeys": keys}, err
}

func createPreAuthKey(s *Server, r *http.Request) (any, error) {
	var request struct {
		User       id        `json:"user"`
		Reusable   bool      `json:"reusable"`
		Ephemeral  bool      `json:"ephemeral"`
		Expiration time.Time `json:"expiration"`
		Tags       []string  `json:"aclTags"`
	}
	if err := decodeStrictly(r, &request); err != nil {
		return nil, err
	}
	created, err := s.createPreAuthKey(V030, PreAuthKey{
		UserID: uint64(request.User), Reusable: request.Reusable, Ephemeral: request.Ephemeral,
		Expiration: request.Expiration, Tags: request.Tags, CreatedAt: s.now(),
	})
	return map[string]any{"preAuthKey": newJSONPreAuthKey(created)}, err
}

func expirePreAuthKey(s *Server, r *http.Request) (any, error) {
	var request struct {
		ID id `json:"id"`
	}
	if err := decodeStrictly(r, &request); err != nil {
		return nil, err
	}
	return map[string]any{}, s.Database().expirePreAuthKey(V030, uint64(request.ID), 0, "", s.now())
}

func deletePreAuthKey(s *Server, r *http.Request) (any, error) {
	var number id
	if err := number.UnmarshalText([]byte(r.URL.Query().Get("id"))); err != nil {
		return nil, newProblem(http.StatusBadRequest, "invalid id", problemError{Message: err.Error()})
	}
	return map[string]any{}, s.Database().deletePreAuthKey(V030, uint64(number))
}

func getPolicy(s *Server, _ *http.Request) (any, error) {
	text, at, err := s.Database().storedPolicy()
	return map[string]any{"policy": text, "updatedAt": at}, err
}

func setPolicy(s *Server, r *http.Request) (any, error) {
	var request struct {
		Policy string `json:"policy"`
	}
	if err := decodeStrictly(r, &request); err != nil {
		return nil, err
	}
	now := s.now()
	return map[string]any{"policy": request.Policy, "updatedAt": now}, s.Database().setPolicy(request.Policy, now)
}

// decodeStrictly reads a request, and refuses properties that it does not have.
func decodeStrictly(r *http.Request, request any) error {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(request)
	if err == nil {
		return nil
	}
	if name, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
		return newProblem(http.StatusUnprocessableEntity, "validation failed",
			problemError{Message: "unexpected property", Location: "body." + strings.Trim(name, `"`)})
	}
	return newProblem(http.StatusUnprocessableEntity, "validation failed", problemError{Message: err.Error(), Location: "body"})
}
