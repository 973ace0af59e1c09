package headscale

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The paths of pre-auth keys over HTTP.
const (
	preAuthKeysPath      = "/api/v1/preauthkey"
	expirePreAuthKeyPath = "/api/v1/preauthkey/expire"
)

// What requests had up to 0.27, in Headscale's preauthkey.proto, and the stubs do not know any
// more: the user whose keys are listed, and with which a key is expired, by its text.
const (
	listOfUserField protowire.Number = 1
	expireKeyField  protowire.Number = 2
)

// legacyKeyNotFound is what Headscale up to 0.27 says of a pre-auth key that it does not know.
// Later releases write it otherwise.
const legacyKeyNotFound = "AuthKey not found"

// Up to 0.27 a list is as many calls as there are users, so it may take the client's timeout once more
// for each usersPerTimeout, up to MaxListTimeouts in all: at 5 seconds each a call may take 10 ms, and
// with 8000 users 2.5 ms.
const (
	usersPerTimeout = 500
	// MaxListTimeouts is how many times the client's timeout a list of pre-auth keys may take.
	MaxListTimeouts = 4
)

// listTimeouts is how many times the client's timeout a list of so many users may take.
func listTimeouts(users int) int { return min(1+users/usersPerTimeout, MaxListTimeouts) }

// PreAuthKey is a key with which nodes register.
type PreAuthKey struct {
	// ID is Headscale's number of the key. It is given out again after a restore of an older
	// database.
	ID uint64
	// Key is the text, a credential: whole when the key is created, and in the lists of
	// releases up to 0.27. Later ones list it as "hskey-auth-<12>-***", but still show the
	// whole text of a key that was made before.
	Key Key
	// UserID is the user that nodes registered with the key belong to. 0: none, but tags.
	UserID uint64
	// Reusable keys register any number of nodes, others one; Used says that one was.
	// Headscale removes Ephemeral nodes some time after they disconnect.
	Reusable, Ephemeral, Used bool
	// Expiration and CreatedAt are UTC. A key that was created without an expiration was never
	// valid, and has one in the year 1. Nil: none.
	Expiration, CreatedAt *time.Time
	// Tags are those of nodes registered with the key, sorted.
	Tags []string
}

// NewPreAuthKey is the request to create a pre-auth key.
type NewPreAuthKey struct {
	// UserID may be 0 with tags, from 0.28 on.
	UserID uint64
	// Reusable and Ephemeral are as in PreAuthKey.
	Reusable, Ephemeral bool
	// Tags begin with "tag:".
	Tags []string
	// Expiration is cut to the microsecond.
	Expiration time.Time
}

// preAuthKeyMeanings maps Headscale's messages about creating or expiring a key to errors.
var preAuthKeyMeanings = meanings{
	"user not found":     ErrUserNotFound,
	legacyKeyNotFound:    ErrPreAuthKeyNotFound, // up to 0.27
	"auth-key not found": ErrPreAuthKeyNotFound, // 0.30
	"record not found":   ErrPreAuthKeyNotFound, // 0.30
}

// ListPreAuthKeys returns the pre-auth keys of the users, by their IDs, and from 0.28 on all
// others, too. Up to 0.27 Headscale has a list for each user only; a user that it does not know
// has no keys. All lists together may have 20 000 entries and 8 MiB, and take the client's timeout once
// and once more for each 500 users, up to four times in all.
func (c *Client) ListPreAuthKeys(ctx context.Context, users []uint64) ([]PreAuthKey, error) {
	keys, err := call(ctx, c, method[[]PreAuthKey]{
		limit:    largeAnswerLimit,
		timeouts: listTimeouts(len(users)),
		grpc: func(ctx context.Context, conn *grpcConn) ([]PreAuthKey, error) {
			return listPreAuthKeysOverGRPC(ctx, conn, users)
		},
		http: listPreAuthKeysOverHTTP,
	})
	if err != nil {
		return nil, fmt.Errorf("listing pre-auth keys: %w", err)
	}
	return keys, nil
}

// listPreAuthKeysOverGRPC asks for all keys. Where Headscale misses a user in that, it is one
// up to 0.27, and has a list for each.
func listPreAuthKeysOverGRPC(ctx context.Context, conn *grpcConn, users []uint64) ([]PreAuthKey, error) {
	keys, err := listPreAuthKeysOf(ctx, conn, 0)
	if !errors.Is(err, ErrUserNotFound) {
		return keys, err
	}
	keys = []PreAuthKey{}
	for _, user := range users {
		listed, err := listPreAuthKeysOf(ctx, conn, user)
		if err != nil && !errors.Is(err, ErrUserNotFound) {
			return nil, err
		}
		if keys = append(keys, listed...); len(keys) > entryLimit {
			return nil, errTooMany
		}
	}
	return keys, nil
}

// listPreAuthKeysOf asks for the keys of a user, or of nobody in particular.
func listPreAuthKeysOf(ctx context.Context, conn *grpcConn, user uint64) ([]PreAuthKey, error) {
	request := &v1.ListPreAuthKeysRequest{}
	if user != 0 {
		field := protowire.AppendTag(nil, listOfUserField, protowire.VarintType)
		request.ProtoReflect().SetUnknown(protowire.AppendVarint(field, user))
	}
	answer, err := conn.stub.ListPreAuthKeys(ctx, request)
	if err != nil {
		return nil, preAuthKeyMeanings.interpret(conn.failure(err))
	}
	keys := make([]PreAuthKey, 0, len(answer.GetPreAuthKeys()))
	for _, listed := range answer.GetPreAuthKeys() {
		keys = append(keys, preAuthKeyOf(listed))
	}
	return keys, nil
}

func preAuthKeyOf(k *v1.PreAuthKey) PreAuthKey {
	return PreAuthKey{
		ID: k.GetId(), Key: NewKey(k.GetKey()), UserID: k.GetUser().GetId(),
		Reusable: k.GetReusable(), Ephemeral: k.GetEphemeral(), Used: k.GetUsed(), Tags: sortedSet(k.GetAclTags()),
		Expiration: validOrNil(timeOf(k.GetExpiration())), CreatedAt: validOrNil(timeOf(k.GetCreatedAt())),
	}
}

func listPreAuthKeysOverHTTP(ctx context.Context, conn *httpConn) ([]PreAuthKey, error) {
	var answer struct {
		PreAuthKeys boundedList[jsonPreAuthKey] `json:"preAuthKeys"`
	}
	if err := conn.exchange(ctx, http.MethodGet, preAuthKeysPath, nil, &answer); err != nil {
		return nil, err
	}
	keys := make([]PreAuthKey, 0, len(answer.PreAuthKeys))
	for i := range answer.PreAuthKeys {
		keys = append(keys, answer.PreAuthKeys[i].preAuthKey())
	}
	return keys, nil
}

// jsonPreAuthKey is a pre-auth key in JSON.
type jsonPreAuthKey struct {
	ID         uint64     `json:"id,string"`
	Key        string     `json:"key"`
	User       jsonUser   `json:"user"`
	Reusable   bool       `json:"reusable"`
	Ephemeral  bool       `json:"ephemeral"`
	Used       bool       `json:"used"`
	Expiration *time.Time `json:"expiration"`
	CreatedAt  *time.Time `json:"createdAt"`
	Tags       []string   `json:"aclTags"`
}

func (k *jsonPreAuthKey) preAuthKey() PreAuthKey {
	return PreAuthKey{
		ID: k.ID, Key: NewKey(k.Key), UserID: k.User.ID,
		Reusable: k.Reusable, Ephemeral: k.Ephemeral, Used: k.Used, Tags: sortedSet(k.Tags),
		Expiration: validOrNil(k.Expiration), CreatedAt: validOrNil(k.CreatedAt),
	}
}

// CreatePreAuthKey creates a pre-auth key, and returns it with its whole text.
//
// The error wraps ErrUserNotFound where Headscale has no such user, and ErrUnsupported for a
// key without a user up to 0.27. After an error that wraps ErrUnavailable the key may exist
// nevertheless, and may appear in the list even later. A zero expiration is an error, because
// Headscale would create a key that is never valid.
func (c *Client) CreatePreAuthKey(ctx context.Context, key NewPreAuthKey) (PreAuthKey, error) {
	if key.Expiration.IsZero() {
		return PreAuthKey{}, errors.New("creating a pre-auth key: the expiration is not set")
	}
	key.Expiration = key.Expiration.UTC().Truncate(time.Microsecond)
	created, err := call(ctx, c, createPreAuthKey(key))
	if err == nil {
		err = checkKey(created.Key.Reveal())
	}
	if key.UserID == 0 && errors.Is(err, ErrUserNotFound) {
		err = fmt.Errorf("%w: a pre-auth key without a user needs Headscale 0.28 or later", ErrUnsupported)
	}
	if err != nil {
		return PreAuthKey{}, fmt.Errorf("creating a pre-auth key: %w", err)
	}
	return created, nil
}

func createPreAuthKey(key NewPreAuthKey) method[PreAuthKey] {
	return method[PreAuthKey]{
		means: preAuthKeyMeanings,
		grpc: func(ctx context.Context, conn *grpcConn) (PreAuthKey, error) {
			answer, err := conn.stub.CreatePreAuthKey(ctx, &v1.CreatePreAuthKeyRequest{
				User: key.UserID, Reusable: key.Reusable, Ephemeral: key.Ephemeral,
				AclTags: key.Tags, Expiration: timestamppb.New(key.Expiration),
			})
			if err != nil {
				return PreAuthKey{}, conn.failure(err)
			}
			return preAuthKeyOf(answer.GetPreAuthKey()), nil
		},
		http: func(ctx context.Context, conn *httpConn) (PreAuthKey, error) {
			request := map[string]any{
				"reusable": key.Reusable, "ephemeral": key.Ephemeral, "expiration": key.Expiration.Format(timeLayout),
			}
			if key.UserID != 0 {
				request["user"] = strconv.FormatUint(key.UserID, 10)
			}
			if len(key.Tags) > 0 {
				request["aclTags"] = key.Tags
			}
			var answer struct {
				PreAuthKey jsonPreAuthKey `json:"preAuthKey"`
			}
			err := conn.exchange(ctx, http.MethodPost, preAuthKeysPath, request, &answer)
			return answer.PreAuthKey.preAuthKey(), err
		},
	}
}

// ExpirePreAuthKey ends the validity of a key now. From 0.28 on Headscale finds it by its ID,
// before that by its UserID and its whole text.
//
// Where Headscale says that it does not know the key, the error wraps ErrPreAuthKeyNotFound.
// From 0.28 to 0.29 there is no such error: only a list shows whether the key is expired.
func (c *Client) ExpirePreAuthKey(ctx context.Context, key PreAuthKey) error {
	if key.ID == 0 {
		return errors.New("expiring a pre-auth key: it has no ID")
	}
	if _, err := call(ctx, c, expirePreAuthKey(key)); err != nil {
		return fmt.Errorf("expiring a pre-auth key: %w", err)
	}
	return nil
}

func expirePreAuthKey(key PreAuthKey) method[struct{}] {
	return method[struct{}]{
		means: preAuthKeyMeanings,
		grpc: func(ctx context.Context, conn *grpcConn) (none struct{}, err error) {
			return none, expirePreAuthKeyOverGRPC(ctx, conn, key)
		},
		http: func(ctx context.Context, conn *httpConn) (none struct{}, err error) {
			request := map[string]string{"id": strconv.FormatUint(key.ID, 10)}
			return none, conn.exchange(ctx, http.MethodPost, expirePreAuthKeyPath, request, nil)
		},
	}
}

// expirePreAuthKeyOverGRPC gives the ID first. The same field is the user of a request up to
// 0.27, which lacks a text then and is refused. The other way around, a later release would
// take the user for the ID of a key, and expire somebody else's: so the text is sent only to a
// Headscale that has just refused an ID in the words of those releases.
func expirePreAuthKeyOverGRPC(ctx context.Context, conn *grpcConn, key PreAuthKey) error {
	_, err := conn.stub.ExpirePreAuthKey(ctx, &v1.ExpirePreAuthKeyRequest{Id: key.ID})
	if err != nil && isLegacy(conn.failure(err)) {
		request := &v1.ExpirePreAuthKeyRequest{Id: key.UserID}
		field := protowire.AppendTag(nil, expireKeyField, protowire.BytesType)
		request.ProtoReflect().SetUnknown(protowire.AppendString(field, key.Key.Reveal()))
		_, err = conn.stub.ExpirePreAuthKey(ctx, request)
	}
	if err != nil {
		return conn.failure(err)
	}
	return nil
}

// DeletePreAuthKey removes a key, expired or not. Headscale keeps expired keys forever, and lists
// have a limit, so a caller that creates keys regularly has to delete them. The error wraps
// ErrUnsupported up to 0.27, and may wrap ErrPreAuthKeyNotFound from 0.30 on.
func (c *Client) DeletePreAuthKey(ctx context.Context, id uint64) error {
	if id == 0 {
		return errors.New("deleting a pre-auth key: it has no ID")
	}
	if _, err := call(ctx, c, deletePreAuthKey(id)); err != nil {
		return fmt.Errorf("deleting a pre-auth key: %w", err)
	}
	return nil
}

func deletePreAuthKey(id uint64) method[struct{}] {
	return method[struct{}]{
		means: preAuthKeyMeanings,
		grpc: func(ctx context.Context, conn *grpcConn) (none struct{}, err error) {
			if _, err = conn.stub.DeletePreAuthKey(ctx, &v1.DeletePreAuthKeyRequest{Id: id}); err != nil {
				return none, conn.failure(err)
			}
			return none, nil
		},
		http: func(ctx context.Context, conn *httpConn) (none struct{}, err error) {
			path := preAuthKeysPath + "?id=" + strconv.FormatUint(id, 10)
			return none, conn.exchange(ctx, http.MethodDelete, path, nil, nil)
		},
	}
}

// isLegacy reports whether an error is that of a Headscale up to 0.27 that was given the ID of a
// pre-auth key.
func isLegacy(err error) bool {
	var refused *Refusal
	return errors.As(err, &refused) && refused.Words == legacyKeyNotFound
}
