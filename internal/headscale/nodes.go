package headscale

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/protobuf/encoding/protowire"
)

// nodesPath is the path of nodes over HTTP.
const nodesPath = "/api/v1/node"

// TaggedDevicesID is the ID of the user that releases from 0.28 on show for a node with tags,
// whoever it belongs to.
const TaggedDevicesID = 2147455555

// The fields of a node's tags up to 0.27, in Headscale's node.proto: tags that an administrator
// or a pre-auth key gave, and those that the node asked for and may have.
const (
	forcedTagsField protowire.Number = 18
	validTagsField  protowire.Number = 20
)

// Node is a node of the tailnet. Its texts are as Headscale has them: they are to be sanitized
// before they are shown.
type Node struct {
	// ID is Headscale's number of the node.
	ID uint64
	// Name is that of its host, and GivenName the one that is unique in the tailnet.
	Name, GivenName string
	// UserID is that of the user that the list shows the node under: for a node with tags, from
	// 0.28 on, TaggedDevicesID. From 0.27 on UserName is that of before where a user was renamed,
	// until Headscale restarts.
	UserID   uint64
	UserName string
	// Tags are those in force, sorted.
	Tags []string
	// Addresses are those in the tailnet.
	Addresses []string
	// Online says whether the node is connected.
	Online bool
	// LastSeen, Expiry and CreatedAt are nil where there is none.
	LastSeen, Expiry, CreatedAt *time.Time
	// PreAuthKeyID is the key that the node registered with, or 0.
	PreAuthKeyID uint64
	// AvailableRoutes are those that the node announces, ApprovedRoutes those that it may have.
	AvailableRoutes, ApprovedRoutes []string
}

// nodeMeanings are what Headscale says of nodes: up to 0.26 as its database does, from 0.27 on in one
// of two ways.
var nodeMeanings = meanings{
	"node not found":                     ErrNodeNotFound,
	"node no longer exists in NodeStore": ErrNodeNotFound,
	"record not found":                   ErrNodeNotFound,
}

// ListNodes returns all nodes. A list of more than 20 000 entries, or 8 MiB, is an error.
func (c *Client) ListNodes(ctx context.Context) ([]Node, error) {
	nodes, err := call(ctx, c, method[[]Node]{limit: largeAnswerLimit, grpc: listNodesOverGRPC, http: listNodesOverHTTP})
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	return nodes, nil
}

func listNodesOverGRPC(ctx context.Context, conn *grpcConn) ([]Node, error) {
	answer, err := conn.stub.ListNodes(ctx, &v1.ListNodesRequest{})
	if err != nil {
		return nil, conn.failure(err)
	}
	nodes := make([]Node, 0, len(answer.GetNodes()))
	for _, listed := range answer.GetNodes() {
		nodes = append(nodes, nodeOf(listed))
	}
	return nodes, nil
}

func nodeOf(n *v1.Node) Node {
	return Node{
		ID: n.GetId(), Name: n.GetName(), GivenName: n.GetGivenName(), UserID: n.GetUser().GetId(), UserName: n.GetUser().GetName(),
		Tags: tagsOf(n), Addresses: n.GetIpAddresses(), Online: n.GetOnline(),
		LastSeen: setOrNil(timeOf(n.GetLastSeen())), Expiry: setOrNil(timeOf(n.GetExpiry())), CreatedAt: setOrNil(timeOf(n.GetCreatedAt())),
		PreAuthKeyID: n.GetPreAuthKey().GetId(), AvailableRoutes: n.GetAvailableRoutes(), ApprovedRoutes: n.GetApprovedRoutes(),
	}
}

// SetApprovedRoutes replaces the routes that a node may have. To approve one of two routes of an exit
// node is to approve both. The error wraps ErrNodeNotFound where there is no such node.
func (c *Client) SetApprovedRoutes(ctx context.Context, id uint64, routes []string) error {
	if _, err := call(ctx, c, setApprovedRoutes(id, routes)); err != nil {
		return fmt.Errorf("approving routes of a node: %w", err)
	}
	return nil
}

func setApprovedRoutes(id uint64, routes []string) method[struct{}] {
	return method[struct{}]{
		means: nodeMeanings,
		grpc: func(ctx context.Context, conn *grpcConn) (none struct{}, err error) {
			if _, err = conn.stub.SetApprovedRoutes(ctx, &v1.SetApprovedRoutesRequest{NodeId: id, Routes: routes}); err != nil {
				return none, conn.failure(err)
			}
			return none, nil
		},
		http: func(ctx context.Context, conn *httpConn) (none struct{}, err error) {
			request := map[string]any{"routes": append([]string{}, routes...)}
			return none, conn.exchange(ctx, http.MethodPost, nodePath(id)+"/approve_routes", request, nil)
		},
	}
}

// ExpireNode has a node log in again, as of now. The error wraps ErrNodeNotFound where there is no such
// node.
func (c *Client) ExpireNode(ctx context.Context, id uint64) error {
	if _, err := call(ctx, c, expireNode(id)); err != nil {
		return fmt.Errorf("expiring a node: %w", err)
	}
	return nil
}

func expireNode(id uint64) method[struct{}] {
	return method[struct{}]{
		means: nodeMeanings,
		grpc: func(ctx context.Context, conn *grpcConn) (none struct{}, err error) {
			if _, err = conn.stub.ExpireNode(ctx, &v1.ExpireNodeRequest{NodeId: id}); err != nil {
				return none, conn.failure(err)
			}
			return none, nil
		},
		http: func(ctx context.Context, conn *httpConn) (none struct{}, err error) {
			return none, conn.exchange(ctx, http.MethodPost, nodePath(id)+"/expire", nil, nil)
		},
	}
}

// DeleteNode deletes a node. The error wraps ErrNodeNotFound where there is no such node.
func (c *Client) DeleteNode(ctx context.Context, id uint64) error {
	if _, err := call(ctx, c, deleteNode(id)); err != nil {
		return fmt.Errorf("deleting a node: %w", err)
	}
	return nil
}

func deleteNode(id uint64) method[struct{}] {
	return method[struct{}]{
		means: nodeMeanings,
		grpc: func(ctx context.Context, conn *grpcConn) (none struct{}, err error) {
			if _, err = conn.stub.DeleteNode(ctx, &v1.DeleteNodeRequest{NodeId: id}); err != nil {
				return none, conn.failure(err)
			}
			return none, nil
		},
		http: func(ctx context.Context, conn *httpConn) (none struct{}, err error) {
			return none, conn.exchange(ctx, http.MethodDelete, nodePath(id), nil, nil)
		},
	}
}

func nodePath(id uint64) string { return nodesPath + "/" + strconv.FormatUint(id, 10) }

// setOrNil is a time in UTC, or nil where there is none: Headscale says that with the zero time, too.
func setOrNil(instant *time.Time) *time.Time {
	if valid := validOrNil(instant); valid != nil && !valid.IsZero() {
		return valid
	}
	return nil
}

// tagsOf joins a node's tags with those in the fields of older releases, which the stubs do not
// know any more.
func tagsOf(n *v1.Node) []string {
	tags := slices.Clone(n.GetTags())
	for unknown := n.ProtoReflect().GetUnknown(); len(unknown) > 0; {
		number, kind, length := protowire.ConsumeField(unknown)
		if length < 0 {
			break // protobuf has checked it
		}
		if kind == protowire.BytesType && (number == forcedTagsField || number == validTagsField) {
			_, _, tag := protowire.ConsumeTag(unknown)
			text, _ := protowire.ConsumeString(unknown[tag:])
			tags = append(tags, text)
		}
		unknown = unknown[length:]
	}
	return sortedSet(tags)
}

// sortedSet sorts a list and removes what is in it twice.
func sortedSet(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

func listNodesOverHTTP(ctx context.Context, conn *httpConn) ([]Node, error) {
	var answer struct {
		Nodes boundedList[jsonNode] `json:"nodes"`
	}
	if err := conn.exchange(ctx, http.MethodGet, nodesPath, nil, &answer); err != nil {
		return nil, err
	}
	nodes := make([]Node, 0, len(answer.Nodes))
	for i := range answer.Nodes {
		nodes = append(nodes, answer.Nodes[i].node())
	}
	return nodes, nil
}

// jsonNode is a node in JSON, less the keys in it.
type jsonNode struct {
	ID         uint64     `json:"id,string"`
	Name       string     `json:"name"`
	GivenName  string     `json:"givenName"`
	User       jsonUser   `json:"user"`
	Tags       []string   `json:"tags"`
	Addresses  []string   `json:"ipAddresses"`
	Online     bool       `json:"online"`
	LastSeen   *time.Time `json:"lastSeen"`
	Expiry     *time.Time `json:"expiry"`
	CreatedAt  *time.Time `json:"createdAt"`
	PreAuthKey struct {
		ID uint64 `json:"id,string"`
	} `json:"preAuthKey"`
	AvailableRoutes []string `json:"availableRoutes"`
	ApprovedRoutes  []string `json:"approvedRoutes"`
}

func (n *jsonNode) node() Node {
	return Node{
		ID: n.ID, Name: n.Name, GivenName: n.GivenName, UserID: n.User.ID, UserName: n.User.Name,
		Tags: sortedSet(n.Tags), Addresses: n.Addresses, Online: n.Online,
		LastSeen: setOrNil(n.LastSeen), Expiry: setOrNil(n.Expiry), CreatedAt: setOrNil(n.CreatedAt),
		PreAuthKeyID: n.PreAuthKey.ID, AvailableRoutes: n.AvailableRoutes, ApprovedRoutes: n.ApprovedRoutes,
	}
}
