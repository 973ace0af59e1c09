package user

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// step is something that has had its effect outside, after which a test kills the operator.
type step string

const (
	// stepNote notes that a user is about to be created.
	stepNote step = "note"
	// stepCreate, stepRename and stepRemove are the calls of Headscale, of which nothing else tells yet.
	stepCreate step = "create"
	stepRename step = "rename"
	stepRemove step = "remove"
	// stepRelease lets go of an object that is being deleted.
	stepRelease step = "release"
	// stepReport writes the status.
	stepReport step = "report"
)

// The calls that change a user. Headscale refuses what it has done, too, if it could not evaluate its
// policy with that: so after a refusal a list tells.

// createUser creates a user. Where another has the name, of which the snapshot did not know, the
// snapshot knows it afterwards, and the error is errOutdated.
func createUser(ctx context.Context, api instance.API, snapshot *instance.Snapshot, wanted headscale.NewUser) (headscale.User, error) {
	made, refused := api.CreateUser(ctx, wanted)
	if !isRefusal(refused) {
		return made, refused
	}
	users, err := api.ListUsers(ctx)
	if err != nil {
		return headscale.User{}, fmt.Errorf("looking whether there is a user that was refused: %w", err)
	}
	i := slices.IndexFunc(users, func(user headscale.User) bool { return user.Name == wanted.Name && !isForeign(&user) })
	switch {
	case i < 0:
		return headscale.User{}, refused
	case errors.Is(refused, headscale.ErrUserExists) || !matchesNewUser(&users[i], wanted):
		snapshot.PutUser(users[i])
		return headscale.User{}, errOutdated
	default:
		return users[i], nil
	}
}

// renameUser gives a user another name.
func renameUser(ctx context.Context, api instance.API, id uint64, name string) error {
	_, err := api.RenameUser(ctx, id, name)
	return despite(ctx, api, err, func(users []headscale.User) bool {
		return slices.ContainsFunc(users, func(user headscale.User) bool { return user.ID == id && user.Name == name })
	})
}

// removeUser deletes a user, or finds that there is none.
func removeUser(ctx context.Context, api instance.API, id uint64) error {
	err := api.DeleteUser(ctx, id)
	if errors.Is(err, headscale.ErrUserNotFound) {
		return nil
	}
	return despite(ctx, api, err, func(users []headscale.User) bool {
		return !slices.ContainsFunc(users, func(user headscale.User) bool { return user.ID == id })
	})
}

// despite returns an error, unless it is a refusal and a list shows that it was done.
func despite(ctx context.Context, api instance.API, refused error, done func([]headscale.User) bool) error {
	if !isRefusal(refused) || errors.Is(refused, headscale.ErrUserExists) || errors.Is(refused, headscale.ErrUserHasNodes) {
		return refused
	}
	if users, err := api.ListUsers(ctx); err == nil && done(users) {
		return nil
	}
	return refused
}

// isRefusal reports whether Headscale refused something, and not because of who asked for it, or
// because it has no such call.
func isRefusal(err error) bool {
	return errors.Is(err, headscale.ErrRefused) && !errors.Is(err, headscale.ErrUnauthorized) && !errors.Is(err, headscale.ErrUnsupported)
}
