package headscale

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
)

// usersPath is the path of users over HTTP.
const usersPath = "/api/v1/user"

// User is a user of Headscale. Its texts are as Headscale has them, and releases from 0.27 on
// take any: they are to be sanitized before they are shown.
type User struct {
	// ID is Headscale's number of the user. It is given out again after a restore of an older
	// database, so a user is known by its ID, Name and CreatedAt together.
	ID uint64
	// Name is unique among users that no identity provider made.
	Name, DisplayName, Email, PictureURL string
	// Provider is "oidc" for a user that an identity provider made, and ProviderID its name
	// there. Both are empty otherwise; some releases say "cli".
	Provider, ProviderID string
	// CreatedAt is by Headscale's clock, UTC.
	CreatedAt time.Time
}

// NewUser is the request to create a user. Only the name can be changed later.
type NewUser struct {
	Name, DisplayName, Email, PictureURL string
}

// userMeanings maps Headscale's messages about users to errors. They are the same from 0.26 to 0.30
// unless a comment says otherwise.
var userMeanings = meanings{
	"user not found":                                ErrUserNotFound,
	"user not empty":                                ErrUserHasNodes,
	"user already exists":                           ErrUserExists, // 0.30
	"UNIQUE constraint failed: users.name":          ErrUserExists, // SQLite
	"violates unique constraint \"idx_name_no_prov": ErrUserExists, // Postgres
}

// ListUsers returns all users. A list of more than 20 000 entries, or 8 MiB, is an error.
func (c *Client) ListUsers(ctx context.Context) ([]User, error) {
	users, err := call(ctx, c, method[[]User]{limit: largeAnswerLimit, grpc: listUsersOverGRPC, http: listUsersOverHTTP})
	if err != nil {
		return nil, fmt.Errorf("listing users: %w", err)
	}
	return users, nil
}

func listUsersOverGRPC(ctx context.Context, conn *grpcConn) ([]User, error) {
	answer, err := conn.stub.ListUsers(ctx, &v1.ListUsersRequest{})
	if err != nil {
		return nil, conn.failure(err)
	}
	users := make([]User, 0, len(answer.GetUsers()))
	for _, listed := range answer.GetUsers() {
		users = append(users, userOf(listed))
	}
	return users, nil
}

func listUsersOverHTTP(ctx context.Context, conn *httpConn) ([]User, error) {
	var answer struct {
		Users boundedList[jsonUser] `json:"users"`
	}
	if err := conn.exchange(ctx, http.MethodGet, usersPath, nil, &answer); err != nil {
		return nil, err
	}
	users := make([]User, 0, len(answer.Users))
	for _, listed := range answer.Users {
		users = append(users, listed.user())
	}
	return users, nil
}

// CreateUser creates a user. Only 0.26 checks the name, so the caller has to.
//
// The error wraps ErrUserExists if another user has the name. After any other error the user may
// exist nevertheless: Headscale also returns an error if it has created the user and could not
// evaluate its policy with it.
func (c *Client) CreateUser(ctx context.Context, user NewUser) (User, error) {
	if user.Name == "" {
		return User{}, errors.New("creating a user: the name is empty")
	}
	created, err := call(ctx, c, createUser(user))
	if err != nil {
		return User{}, fmt.Errorf("creating a user: %w", err)
	}
	return created, nil
}

func createUser(user NewUser) method[User] {
	return method[User]{
		means: userMeanings,
		grpc: func(ctx context.Context, conn *grpcConn) (User, error) {
			answer, err := conn.stub.CreateUser(ctx, &v1.CreateUserRequest{
				Name: user.Name, DisplayName: user.DisplayName, Email: user.Email, PictureUrl: user.PictureURL,
			})
			if err != nil {
				return User{}, conn.failure(err)
			}
			return checkUser(userOf(answer.GetUser()))
		},
		http: func(ctx context.Context, conn *httpConn) (User, error) {
			request := map[string]string{
				"name": user.Name, "displayName": user.DisplayName, "email": user.Email, "pictureUrl": user.PictureURL,
			}
			return conn.exchangeUser(ctx, usersPath, request)
		},
	}
}

// RenameUser gives a user another name, which only 0.26 checks. The error wraps ErrUserNotFound where there is no such
// user, and ErrUserExists where another has the name.
func (c *Client) RenameUser(ctx context.Context, id uint64, name string) (User, error) {
	if name == "" {
		return User{}, errors.New("renaming a user: the name is empty")
	}
	renamed, err := call(ctx, c, renameUser(id, name))
	if err != nil {
		return User{}, fmt.Errorf("renaming a user: %w", err)
	}
	return renamed, nil
}

func renameUser(id uint64, name string) method[User] {
	return method[User]{
		means: userMeanings,
		grpc: func(ctx context.Context, conn *grpcConn) (User, error) {
			answer, err := conn.stub.RenameUser(ctx, &v1.RenameUserRequest{OldId: id, NewName: name})
			if err != nil {
				return User{}, conn.failure(err)
			}
			return checkUser(userOf(answer.GetUser()))
		},
		http: func(ctx context.Context, conn *httpConn) (User, error) {
			return conn.exchangeUser(ctx, userPath(id)+"/rename/"+url.PathEscape(name), nil)
		},
	}
}

// DeleteUser deletes a user and its pre-auth keys; 0.28.0 deletes those of all others, too. The
// error wraps ErrUserNotFound where there is no such user, and ErrUserHasNodes where nodes
// belong to it: up to 0.28 also such with tags, which a list shows under another user.
func (c *Client) DeleteUser(ctx context.Context, id uint64) error {
	if _, err := call(ctx, c, deleteUser(id)); err != nil {
		return fmt.Errorf("deleting a user: %w", err)
	}
	return nil
}

func deleteUser(id uint64) method[struct{}] {
	return method[struct{}]{
		means: userMeanings,
		grpc: func(ctx context.Context, conn *grpcConn) (none struct{}, err error) {
			if _, err = conn.stub.DeleteUser(ctx, &v1.DeleteUserRequest{Id: id}); err != nil {
				return none, conn.failure(err)
			}
			return none, nil
		},
		http: func(ctx context.Context, conn *httpConn) (none struct{}, err error) {
			return none, conn.exchange(ctx, http.MethodDelete, userPath(id), nil, nil)
		},
	}
}

func userPath(id uint64) string { return usersPath + "/" + strconv.FormatUint(id, 10) }

// exchangeUser sends a request that is answered with a user.
func (h *httpConn) exchangeUser(ctx context.Context, path string, request any) (User, error) {
	var answer struct {
		User jsonUser `json:"user"`
	}
	if err := h.exchange(ctx, http.MethodPost, path, request, &answer); err != nil {
		return User{}, err
	}
	return checkUser(answer.User.user())
}

// checkUser returns an error for an answer without a user.
func checkUser(user User) (User, error) {
	if user.ID == 0 {
		return User{}, errNoUser
	}
	return user, nil
}

var errNoUser = errors.New("the answer of Headscale holds no user")

// jsonUser is a user in JSON: ids are texts, as in the JSON form of protobuf.
type jsonUser struct {
	ID          uint64     `json:"id,string"`
	Name        string     `json:"name"`
	DisplayName string     `json:"displayName"`
	Email       string     `json:"email"`
	PictureURL  string     `json:"profilePicUrl"`
	Provider    string     `json:"provider"`
	ProviderID  string     `json:"providerId"`
	CreatedAt   *time.Time `json:"createdAt"`
}

func (u *jsonUser) user() User {
	return User{
		ID: u.ID, Name: u.Name, DisplayName: u.DisplayName, Email: u.Email, PictureURL: u.PictureURL,
		Provider: u.Provider, ProviderID: u.ProviderID, CreatedAt: knownTime(u.CreatedAt),
	}
}

func userOf(u *v1.User) User {
	return User{
		ID: u.GetId(), Name: u.GetName(), DisplayName: u.GetDisplayName(), Email: u.GetEmail(), PictureURL: u.GetProfilePicUrl(),
		Provider: u.GetProvider(), ProviderID: u.GetProviderId(), CreatedAt: knownTime(timeOf(u.GetCreatedAt())),
	}
}
