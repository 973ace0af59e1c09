package headscaletest

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// User is a user as the fake's database has it.
type User struct {
	ID                                   uint64
	Name, DisplayName, Email, PictureURL string
	Provider, ProviderID                 string
	CreatedAt                            time.Time
}

// PreAuthKey is a pre-auth key as the fake's database has it, with its whole text.
type PreAuthKey struct {
	ID                        uint64
	UserID                    uint64 // 0: none
	Prefix                    string // bare; empty before 0.28
	Text                      string
	Reusable, Ephemeral, Used bool
	Tags                      []string
	Expiration                time.Time // zero: never valid
	CreatedAt                 time.Time
}

// Node is a node as the fake's database has it.
type Node struct {
	ID           uint64
	Name         string
	UserID       uint64 // from 0.29 on of no effect when the node is tagged
	Tags         []string
	PreAuthKeyID uint64 // 0: none
	CreatedAt    time.Time

	Addresses                       []string
	Online                          bool
	LastSeen, Expiry                *time.Time
	AvailableRoutes, ApprovedRoutes []string

	userName string // as releases from 0.27 on remember it until their restart
}

// tailnet is what a database has besides API keys.
type tailnet struct {
	users       table[User]
	preAuthKeys table[PreAuthKey]
	nodes       table[Node]
	policy      string
	policyAt    time.Time // zero: none was set
	policyFile  bool      // policy.mode is file
	// badPolicy is what a policy is refused for that contains it, in the words of policyWords; empty: none is.
	badPolicy, policyWords string
}

// taggedDevices is shown from 0.28 on as the user of each node with tags.
var taggedDevices = User{ID: 2147455555, Name: "tagged-devices", DisplayName: "Tagged Devices"}

// refusal is an error that Headscale answers with, over either transport.
type refusal struct {
	status int
	code   codes.Code
	text   string
}

// Error is the text.
func (r *refusal) Error() string { return r.text }

// GRPCStatus is what gRPC answers with.
func (r *refusal) GRPCStatus() *status.Status { return status.New(r.code, r.text) }

var (
	errUserNotFound       = &refusal{http.StatusNotFound, codes.Unknown, "user not found"}
	errUserHasNodes       = &refusal{http.StatusBadRequest, codes.Unknown, "user not empty: node(s) found"}
	errPreAuthKeyNotFound = &refusal{http.StatusNotFound, codes.Unknown, "auth-key not found: record not found"}
	errLegacyKeyNotFound  = &refusal{0, codes.Unknown, "AuthKey not found"}
	errNotOfUser          = &refusal{0, codes.Unknown, "preauth key does not belong to user"}
	errNeitherUserNorTags = &refusal{http.StatusBadRequest, codes.Unknown, "auth-key must be either tagged or owned by user"}
	errBadTag             = &refusal{http.StatusBadRequest, codes.InvalidArgument, "tag must start with the string 'tag:'"}
	errNoPolicy           = &refusal{http.StatusInternalServerError, codes.Unknown, "loading ACL from database: acl policy not found"}
	errPolicyMode         = &refusal{http.StatusBadRequest, codes.Unknown, "update is disabled for modes other than 'database'"}
	errBadPolicy          = &refusal{http.StatusBadRequest, codes.Unknown, "setting policy: parsing policy: parsing HuJSON: hujson: line 1, column 1: invalid literal"}
	errUnknownMethod      = &refusal{0, codes.Unimplemented, "unknown method DeletePreAuthKey for service headscale.v1.HeadscaleService"}
)

// table is a table of a database: rows with IDs that are not given out again.
type table[Row any] struct {
	lastID uint64
	rows   []Row
}

func (t *table[Row]) clone() table[Row] { return table[Row]{t.lastID, slices.Clone(t.rows)} }

// insert adds a row with the next ID, which set writes into it.
func (t *table[Row]) insert(row Row, set func(*Row, uint64)) Row {
	t.lastID++
	set(&row, t.lastID)
	t.rows = append(t.rows, row)
	return row
}

// find returns the first row that fits, or nil.
func (t *table[Row]) find(fits func(*Row) bool) *Row {
	for i := range t.rows {
		if fits(&t.rows[i]) {
			return &t.rows[i]
		}
	}
	return nil
}

// remove removes the rows that fit, and says whether there was one.
func (t *table[Row]) remove(fits func(*Row) bool) bool {
	before := len(t.rows)
	t.rows = slices.DeleteFunc(t.rows, func(row Row) bool { return fits(&row) })
	return len(t.rows) < before
}

// Users returns all users by ascending ID.
func (d *Database) Users() []User {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.users.rows)
}

// InsertUser adds a user with the next ID, whatever its other fields are, as an identity
// provider or somebody else would.
func (d *Database) InsertUser(user User) User {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.users.insert(user, func(u *User, id uint64) { u.ID = id })
}

// RemoveUser removes a user and nothing else, and says whether there was one.
func (d *Database) RemoveUser(id uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.users.remove(func(u *User) bool { return u.ID == id })
}

// PreAuthKeys returns all pre-auth keys by ascending ID.
func (d *Database) PreAuthKeys() []PreAuthKey {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.preAuthKeys.rows)
}

// InsertPreAuthKey adds a pre-auth key with the next ID, whatever its other fields are.
func (d *Database) InsertPreAuthKey(key PreAuthKey) PreAuthKey {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.preAuthKeys.insert(key, func(k *PreAuthKey, id uint64) { k.ID = id })
}

// UsePreAuthKey marks a pre-auth key as used, and says whether there was one.
func (d *Database) UsePreAuthKey(id uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := d.preAuthKeys.find(func(k *PreAuthKey) bool { return k.ID == id })
	if key != nil {
		key.Used = true
	}
	return key != nil
}

// RemovePreAuthKey removes a pre-auth key, and says whether there was one.
func (d *Database) RemovePreAuthKey(id uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.preAuthKeys.remove(func(k *PreAuthKey) bool { return k.ID == id })
}

// InsertNode adds a node with the next ID, as if it had registered.
func (d *Database) InsertNode(node Node) Node {
	d.mu.Lock()
	defer d.mu.Unlock()
	node.userName = d.userName(node.UserID)
	return d.nodes.insert(node, func(n *Node, id uint64) { n.ID = id })
}

// RemoveNode removes a node, and says whether there was one.
func (d *Database) RemoveNode(id uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.nodes.remove(func(n *Node) bool { return n.ID == id })
}

// Nodes returns all nodes by ascending ID.
func (d *Database) Nodes() []Node {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.nodes.rows)
}

// Policy returns the policy, and whether one was set.
func (d *Database) Policy() (text string, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.policy, !d.policyAt.IsZero()
}

// PutPolicy sets the policy as somebody else would, unchecked.
func (d *Database) PutPolicy(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.policy, d.policyAt = text, time.Now()
}

// ReadPolicyFromFile lets Headscale refuse a policy, as with policy.mode file.
func (d *Database) ReadPolicyFromFile(file bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.policyFile = file
}

// RefusePolicies lets Headscale refuse policies that contain a text, in these words: the fake does not
// look into a policy otherwise.
func (d *Database) RefusePolicies(containing, words string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.badPolicy, d.policyWords = containing, words
}

// refresh is what a restart of Headscale does to what it remembers.
func (d *Database) refresh() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.nodes.rows {
		d.nodes.rows[i].userName = d.userName(d.nodes.rows[i].UserID)
	}
}

// userName is the name of a user; d.mu is held.
func (d *Database) userName(id uint64) string {
	if user := d.user(id); user != nil {
		return user.Name
	}
	return ""
}

// user finds a user; d.mu is held.
func (d *Database) user(id uint64) *User {
	return d.users.find(func(u *User) bool { return u.ID == id })
}

// createUser makes a user that the admin API was asked for. Only some releases check the name.
func (d *Database) createUser(release Release, user User) (User, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if release == V026 {
		if err := checkName(user.Name); err != nil {
			return User{}, err
		}
	}
	if d.taken(user.Name) {
		return User{}, userExists(release)
	}
	created := d.users.insert(user, func(u *User, id uint64) { u.ID = id })
	return shownUser(release, created), nil
}

// taken reports whether a user that no identity provider made has the name; d.mu is held.
func (d *Database) taken(name string) bool {
	return d.users.find(func(u *User) bool { return u.Name == name && u.Provider == "" }) != nil
}

func userExists(release Release) error {
	switch release {
	case V026:
		return &refusal{0, codes.Unknown, "creating user: UNIQUE constraint failed: users.name"}
	case V030:
		return &refusal{http.StatusConflict, 0, "user already exists"}
	default:
		return &refusal{0, codes.Internal, "failed to create user: UNIQUE constraint failed: users.name"}
	}
}

// checkName is the check of a user's name by 0.26.
func checkName(name string) error {
	refuse := func(text string) error {
		return &refusal{http.StatusInternalServerError, codes.Unknown, text}
	}
	if len(name) < 2 {
		return refuse("username must be at least 2 characters long")
	}
	if unicode.IsDigit(rune(name[0])) {
		return refuse("username cannot start with a number")
	}
	for _, char := range name {
		if !unicode.IsLetter(char) && !unicode.IsDigit(char) && !strings.ContainsRune("-._@", char) {
			return refuse(fmt.Sprintf("username contains invalid character: '%c'", char))
		}
	}
	if strings.Count(name, "@") > 1 {
		return refuse("username cannot contain more than one '@'")
	}
	return nil
}

// renameUser renames a user. From 0.27 on its nodes are shown under the old name until a restart;
// with 0.30 nobody has looked.
func (d *Database) renameUser(release Release, id uint64, name string) (User, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	user := d.user(id)
	if user == nil {
		return User{}, errUserNotFound
	}
	if release == V026 {
		if err := checkName(name); err != nil {
			return User{}, err
		}
	}
	if user.Name != name && d.taken(name) {
		return User{}, &refusal{http.StatusInternalServerError, codes.Unknown, "UNIQUE constraint failed: users.name"}
	}
	user.Name = name
	for i := range d.nodes.rows {
		if node := &d.nodes.rows[i]; node.UserID == id && release == V026 {
			node.userName = name
		}
	}
	return shownUser(release, *user), nil
}

// deleteUser deletes a user without nodes, and its pre-auth keys. v0.28.0 deletes those of all
// others, too. Up to there a node belongs to its user also when it is tagged.
func (d *Database) deleteUser(release Release, id uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.user(id) == nil {
		return errUserNotFound
	}
	if d.nodes.find(func(n *Node) bool { return n.UserID == id && (release < V029 || len(n.Tags) == 0) }) != nil {
		return errUserHasNodes
	}
	d.preAuthKeys.remove(func(k *PreAuthKey) bool { return release == V028 || k.UserID == id })
	d.users.remove(func(u *User) bool { return u.ID == id })
	return nil
}

// shownUser is how a release shows a user: from 0.28 on, one without a name has its ID for one.
func shownUser(release Release, user User) User {
	if release >= V028 {
		user.Name = cmp.Or(user.Name, user.Email, user.ProviderID, strconv.FormatUint(user.ID, 10))
	}
	return user
}

// shownUsers is the list of users of a release.
func (d *Database) shownUsers(release Release) []User {
	users := d.Users()
	for i := range users {
		users[i] = shownUser(release, users[i])
	}
	return users
}

// shownNode is a node in a list.
type shownNode struct {
	Node
	user User
	key  *PreAuthKey // nil: none
}

// shownNodes is the list of nodes of a release.
func (d *Database) shownNodes(release Release) []shownNode {
	d.mu.Lock()
	defer d.mu.Unlock()
	nodes := make([]shownNode, 0, len(d.nodes.rows))
	for _, node := range d.nodes.rows {
		shown := shownNode{Node: node}
		if user := d.user(node.UserID); user != nil {
			shown.user = shownUser(release, *user)
			shown.user.Name = node.userName
		}
		if release >= V028 && len(node.Tags) > 0 {
			shown.user = taggedDevices
		}
		shown.key = d.preAuthKeys.find(func(k *PreAuthKey) bool { return k.ID == node.PreAuthKeyID })
		nodes = append(nodes, shown)
	}
	return nodes
}

// changeNode changes a node. The words for a node that there is not are those of the release, and of
// 0.30 for one that is to be deleted.
func (d *Database) changeNode(release Release, id uint64, words string, change func(*Node)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	node := d.nodes.find(func(n *Node) bool { return n.ID == id })
	switch {
	case node == nil && release == V026:
		return &refusal{0, codes.Unknown, "record not found"}
	case node == nil:
		return &refusal{http.StatusNotFound, codes.Unknown, words}
	}
	change(node)
	return nil
}

const wordsOfNoNode = "node no longer exists in NodeStore"

// approveRoutes replaces the approved routes of a node. One of the two of an exit node stands for both.
func (d *Database) approveRoutes(release Release, id uint64, routes []string) error {
	const exit4, exit6 = "0.0.0.0/0", "::/0"
	approved := []string{}
	for _, route := range routes {
		switch _, err := netip.ParsePrefix(route); {
		case err != nil:
			return &refusal{http.StatusBadRequest, codes.Unknown, "parsing route: " + err.Error()}
		case route == exit4 || route == exit6:
			approved = append(approved, exit4, exit6)
		default:
			approved = append(approved, route)
		}
	}
	slices.Sort(approved)
	return d.changeNode(release, id, wordsOfNoNode, func(n *Node) { n.ApprovedRoutes = slices.Compact(approved) })
}

// expireNode has a node log in again.
func (d *Database) expireNode(release Release, id uint64, at time.Time) error {
	return d.changeNode(release, id, wordsOfNoNode, func(n *Node) { n.Expiry = &at })
}

// deleteNode deletes a node.
func (d *Database) deleteNode(release Release, id uint64) error {
	err := d.changeNode(release, id, "node not found", func(*Node) {})
	d.RemoveNode(id)
	return err
}

// shownPreAuthKey is a pre-auth key in an answer, and its user, or nil.
type shownPreAuthKey struct {
	PreAuthKey
	user *User
}

// shownPreAuthKeys is the list of a release. Up to 0.27 it is that of a user, with whole texts;
// from 0.28 on it has all keys, and shows the whole text of those only that were made before.
func (d *Database) shownPreAuthKeys(release Release, user uint64) ([]shownPreAuthKey, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if release < V028 && d.user(user) == nil {
		return nil, errUserNotFound
	}
	var keys []shownPreAuthKey
	for _, key := range d.preAuthKeys.rows {
		if release >= V028 && key.Prefix != "" {
			key.Text = "hskey-auth-" + key.Prefix + "-***"
		}
		if release >= V028 || key.UserID == user {
			keys = append(keys, shownPreAuthKey{key, d.user(key.UserID)})
		}
	}
	return keys, nil
}

// createPreAuthKey makes a pre-auth key that the admin API was asked for.
func (d *Database) createPreAuthKey(release Release, key PreAuthKey) (shownPreAuthKey, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, tag := range key.Tags {
		if !strings.HasPrefix(tag, "tag:") {
			return shownPreAuthKey{}, errBadTag
		}
	}
	user := d.user(key.UserID)
	switch {
	case user == nil && (key.UserID != 0 || release < V028):
		return shownPreAuthKey{}, errUserNotFound
	case user == nil && len(key.Tags) == 0:
		return shownPreAuthKey{}, errNeitherUserNorTags
	}
	key.Prefix, key.Text = newPreAuthKey(release)
	return shownPreAuthKey{d.preAuthKeys.insert(key, func(k *PreAuthKey, id uint64) { k.ID = id }), user}, nil
}

// newPreAuthKey makes up a pre-auth key in the format of the release.
func newPreAuthKey(release Release) (prefix, text string) {
	if release < V028 {
		return "", randomHex(48)
	}
	random := randomURLSafe
	if release == V030 {
		random = randomHex
	}
	prefix = random(12)
	return prefix, "hskey-auth-" + prefix + "-" + random(64)
}

// expirePreAuthKey lets a key expire. From 0.28 on it is found by its ID, where 0.28 and 0.29 do
// not miss it; before, by its user and its text.
func (d *Database) expirePreAuthKey(release Release, id, user uint64, text string, at time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := d.preAuthKeys.find(func(k *PreAuthKey) bool {
		return release >= V028 && k.ID == id || release < V028 && k.Text == text
	})
	switch {
	case key == nil && release < V028:
		return errLegacyKeyNotFound
	case key == nil && release == V030:
		return errPreAuthKeyNotFound
	case key == nil:
		return nil
	case release < V028 && key.UserID != user:
		return errNotOfUser
	}
	key.Expiration = at
	return nil
}

// deletePreAuthKey removes a key, from 0.28 on.
func (d *Database) deletePreAuthKey(release Release, id uint64) error {
	switch {
	case release < V028:
		return errUnknownMethod
	case !d.RemovePreAuthKey(id) && release == V030:
		return errPreAuthKeyNotFound
	default:
		return nil
	}
}

// storedPolicy is the answer to who asks for the policy.
func (d *Database) storedPolicy() (text string, at time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.policyAt.IsZero() {
		return "", time.Time{}, errNoPolicy
	}
	return d.policy, d.policyAt, nil
}

// setPolicy replaces the policy. That a text is none is told here by its end only.
func (d *Database) setPolicy(text string, at time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.policyFile:
		return errPolicyMode
	case text != "" && !strings.HasSuffix(strings.TrimSpace(text), "}"):
		return errBadPolicy
	case d.badPolicy != "" && strings.Contains(text, d.badPolicy):
		return &refusal{http.StatusBadRequest, codes.Unknown, d.policyWords}
	}
	d.policy, d.policyAt = text, at
	return nil
}
