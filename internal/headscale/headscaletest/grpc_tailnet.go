package headscaletest

import (
	"context"
	"slices"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Fields that the messages had up to 0.27 and the stubs do not know any more: the user of a
// list of pre-auth keys, the text of one that is to expire, and the tags of a node.
const (
	userField       protowire.Number = 1
	keyField        protowire.Number = 2
	forcedTagsField protowire.Number = 18
	validTagsField  protowire.Number = 20
)

func (g *grpcService) ListUsers(context.Context, *v1.ListUsersRequest) (*v1.ListUsersResponse, error) {
	answer := &v1.ListUsersResponse{}
	for _, user := range g.server.Database().shownUsers(g.release) {
		answer.Users = append(answer.Users, protoUser(user))
	}
	return answer, nil
}

func (g *grpcService) CreateUser(_ context.Context, request *v1.CreateUserRequest) (*v1.CreateUserResponse, error) {
	user, err := g.server.Database().createUser(g.release, User{
		Name: request.GetName(), DisplayName: request.GetDisplayName(), Email: request.GetEmail(),
		PictureURL: request.GetPictureUrl(), CreatedAt: g.server.now(),
	})
	return &v1.CreateUserResponse{User: protoUser(user)}, err
}

func (g *grpcService) RenameUser(_ context.Context, request *v1.RenameUserRequest) (*v1.RenameUserResponse, error) {
	user, err := g.server.Database().renameUser(g.release, request.GetOldId(), request.GetNewName())
	return &v1.RenameUserResponse{User: protoUser(user)}, err
}

func (g *grpcService) DeleteUser(_ context.Context, request *v1.DeleteUserRequest) (*v1.DeleteUserResponse, error) {
	return &v1.DeleteUserResponse{}, g.server.Database().deleteUser(g.release, request.GetId())
}

func protoUser(user User) *v1.User {
	return &v1.User{
		Id: user.ID, Name: user.Name, DisplayName: user.DisplayName, Email: user.Email, ProfilePicUrl: user.PictureURL,
		Provider: user.Provider, ProviderId: user.ProviderID, CreatedAt: timestamppb.New(user.CreatedAt),
	}
}

// ListNodes shows the tags of nodes in the fields of the release.
func (g *grpcService) ListNodes(context.Context, *v1.ListNodesRequest) (*v1.ListNodesResponse, error) {
	answer := &v1.ListNodesResponse{}
	for _, shown := range g.server.Database().shownNodes(g.release) {
		node := &v1.Node{
			Id: shown.ID, Name: shown.Name, GivenName: shown.Name, User: protoUser(shown.user), CreatedAt: timestamppb.New(shown.CreatedAt),
			IpAddresses: shown.Addresses, Online: shown.Online, LastSeen: protoTime(shown.LastSeen), Expiry: protoTime(shown.Expiry),
			AvailableRoutes: shown.AvailableRoutes, ApprovedRoutes: shown.ApprovedRoutes,
		}
		if shown.key != nil {
			node.PreAuthKey = protoPreAuthKey(shownPreAuthKey{PreAuthKey: *shown.key})
		}
		if node.Tags = shown.Tags; g.release < V028 {
			node.Tags = nil
			node.ProtoReflect().SetUnknown(slices.Concat(textFields(forcedTagsField, shown.Tags), textFields(validTagsField, shown.Tags)))
		}
		answer.Nodes = append(answer.Nodes, node)
	}
	return answer, nil
}

func protoTime(at *time.Time) *timestamppb.Timestamp {
	if at == nil {
		return nil
	}
	return timestamppb.New(*at)
}

func (g *grpcService) SetApprovedRoutes(_ context.Context, request *v1.SetApprovedRoutesRequest) (*v1.SetApprovedRoutesResponse, error) {
	return &v1.SetApprovedRoutesResponse{}, g.server.Database().approveRoutes(g.release, request.GetNodeId(), request.GetRoutes())
}

func (g *grpcService) ExpireNode(_ context.Context, request *v1.ExpireNodeRequest) (*v1.ExpireNodeResponse, error) {
	return &v1.ExpireNodeResponse{}, g.server.Database().expireNode(g.release, request.GetNodeId(), g.server.now())
}

func (g *grpcService) DeleteNode(_ context.Context, request *v1.DeleteNodeRequest) (*v1.DeleteNodeResponse, error) {
	return &v1.DeleteNodeResponse{}, g.server.Database().deleteNode(g.release, request.GetNodeId())
}

// textFields encodes a repeated field of texts.
func textFields(number protowire.Number, texts []string) (fields []byte) {
	for _, text := range texts {
		fields = protowire.AppendString(protowire.AppendTag(fields, number, protowire.BytesType), text)
	}
	return fields
}

func (g *grpcService) ListPreAuthKeys(_ context.Context, request *v1.ListPreAuthKeysRequest) (*v1.ListPreAuthKeysResponse, error) {
	user, _ := unknownFields(request.ProtoReflect().GetUnknown())
	keys, err := g.server.Database().shownPreAuthKeys(g.release, user)
	answer := &v1.ListPreAuthKeysResponse{}
	for _, key := range keys {
		answer.PreAuthKeys = append(answer.PreAuthKeys, protoPreAuthKey(key))
	}
	return answer, err
}

func (g *grpcService) CreatePreAuthKey(_ context.Context, request *v1.CreatePreAuthKeyRequest) (*v1.CreatePreAuthKeyResponse, error) {
	key := PreAuthKey{
		UserID: request.GetUser(), Reusable: request.GetReusable(), Ephemeral: request.GetEphemeral(),
		Tags: request.GetAclTags(), CreatedAt: g.server.now(),
	}
	if request.GetExpiration() != nil {
		key.Expiration = request.GetExpiration().AsTime()
	}
	created, err := g.server.createPreAuthKey(g.release, key)
	return &v1.CreatePreAuthKeyResponse{PreAuthKey: protoPreAuthKey(created)}, err
}

// ExpirePreAuthKey finds the user of a request up to 0.27 in the field that is an ID later.
func (g *grpcService) ExpirePreAuthKey(_ context.Context, request *v1.ExpirePreAuthKeyRequest) (*v1.ExpirePreAuthKeyResponse, error) {
	_, text := unknownFields(request.ProtoReflect().GetUnknown())
	err := g.server.Database().expirePreAuthKey(g.release, request.GetId(), request.GetId(), text, g.server.now())
	return &v1.ExpirePreAuthKeyResponse{}, err
}

func (g *grpcService) DeletePreAuthKey(_ context.Context, request *v1.DeletePreAuthKeyRequest) (*v1.DeletePreAuthKeyResponse, error) {
	return &v1.DeletePreAuthKeyResponse{}, g.server.Database().deletePreAuthKey(g.release, request.GetId())
}

// unknownFields reads those of requests up to 0.27.
func unknownFields(fields []byte) (user uint64, text string) {
	for len(fields) > 0 {
		number, kind, tag := protowire.ConsumeTag(fields)
		length := protowire.ConsumeFieldValue(number, kind, fields[tag:])
		switch {
		case number == userField && kind == protowire.VarintType:
			user, _ = protowire.ConsumeVarint(fields[tag:])
		case number == keyField && kind == protowire.BytesType:
			text, _ = protowire.ConsumeString(fields[tag:])
		}
		fields = fields[tag+length:] // protobuf has checked it
	}
	return user, text
}

func protoPreAuthKey(key shownPreAuthKey) *v1.PreAuthKey {
	shown := &v1.PreAuthKey{
		Id: key.ID, Key: key.Text, Reusable: key.Reusable, Ephemeral: key.Ephemeral, Used: key.Used, AclTags: key.Tags,
		Expiration: timestamppb.New(key.Expiration), CreatedAt: timestamppb.New(key.CreatedAt),
	}
	if key.user != nil {
		shown.User = protoUser(*key.user)
	}
	return shown
}

func (g *grpcService) GetPolicy(context.Context, *v1.GetPolicyRequest) (*v1.GetPolicyResponse, error) {
	text, at, err := g.server.Database().storedPolicy()
	return &v1.GetPolicyResponse{Policy: text, UpdatedAt: timestamppb.New(at)}, err
}

func (g *grpcService) SetPolicy(_ context.Context, request *v1.SetPolicyRequest) (*v1.SetPolicyResponse, error) {
	now := g.server.now()
	err := g.server.Database().setPolicy(request.GetPolicy(), now)
	return &v1.SetPolicyResponse{Policy: request.GetPolicy(), UpdatedAt: timestamppb.New(now)}, err
}
