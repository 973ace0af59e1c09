package user

import (
	"context"
	"errors"
	"fmt"
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// answers are those of a Headscale: a real one refuses nothing on demand that it has done.
type answers struct {
	instance.API // nil: no other calls
	answer, list error
	users        []headscale.User
	listed       int
}

func (a *answers) ListUsers(context.Context) ([]headscale.User, error) {
	a.listed++
	return a.users, a.list
}

func (a *answers) CreateUser(_ context.Context, user headscale.NewUser) (headscale.User, error) {
	return headscale.User{ID: 7, Name: user.Name}, a.answer
}

func (a *answers) RenameUser(_ context.Context, id uint64, name string) (headscale.User, error) {
	return headscale.User{ID: id, Name: name}, a.answer
}

func (a *answers) DeleteUser(context.Context, uint64) error { return a.answer }

// Refusals with which Headscale may have done what it was asked for.
var (
	errRefusedIt = error(&headscale.Refusal{Words: "updating policy manager users"})
	errTaken     = fmt.Errorf("%w: %w", headscale.ErrRefused, headscale.ErrUserExists)
	errNodes     = fmt.Errorf("%w: %w", headscale.ErrRefused, headscale.ErrUserHasNodes)
	errWrong     = fmt.Errorf("%w: %w", headscale.ErrRefused, headscale.ErrUnauthorized)
	errAway      = fmt.Errorf("%w: reset", headscale.ErrUnavailable)
)

func TestCreateUserThatIsRefused(t *testing.T) {
	alice := headscale.User{ID: 3, Name: "alice", DisplayName: "Alice"}
	other := headscale.User{ID: 4, Name: "alice", DisplayName: "Somebody"}
	foreign := headscale.User{ID: 5, Name: "alice", DisplayName: "Alice", Provider: "oidc", ProviderID: "x"}
	for name, test := range map[string]struct {
		answers answers
		made    uint64
		err     error
		// knows is the id that the snapshot has afterwards, and lists how often was listed.
		knows uint64
		lists int
	}{
		"made":                              {made: 7},
		"no answer":                         {answers: answers{answer: errAway}, err: errAway},
		"the key is refused":                {answers: answers{answer: errWrong, users: []headscale.User{alice}}, err: errWrong},
		"refused":                           {answers: answers{answer: errRefusedIt}, err: errRefusedIt, lists: 1},
		"refused, and made":                 {answers: answers{answer: errRefusedIt, users: []headscale.User{{ID: 1, Name: "bob"}, alice}}, made: 3, lists: 1},
		"refused, and another one is there": {answers: answers{answer: errRefusedIt, users: []headscale.User{other}}, err: errOutdated, knows: 4, lists: 1},
		"refused, and one of a provider is there": {answers: answers{answer: errRefusedIt, users: []headscale.User{foreign}}, err: errRefusedIt, lists: 1},
		"the name is taken":                       {answers: answers{answer: errTaken, users: []headscale.User{alice}}, err: errOutdated, knows: 3, lists: 1},
		"the name is taken by none in the list":   {answers: answers{answer: errTaken}, err: errTaken, lists: 1},
		"refused, and no list":                    {answers: answers{answer: errRefusedIt, list: errAway}, err: errAway, lists: 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			snapshot := instance.NewSnapshot()
			made, err := createUser(t.Context(), &test.answers, snapshot, headscale.NewUser{Name: "alice", DisplayName: "Alice"})
			if test.err == nil {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(made.ID).To(Equal(test.made))
			} else {
				g.Expect(errors.Is(err, test.err)).To(BeTrue(), "the error: %v", err)
			}
			g.Expect(test.answers.listed).To(Equal(test.lists))
			_, knows := snapshot.User(test.knows)
			g.Expect(knows).To(Equal(test.knows != 0))
		})
	}
}

// A user whose creation was refused is noted as the object's own until it is known that there is none.
func TestRefusedCreationThatMayHaveHappened(t *testing.T) {
	g := NewWithT(t)
	unknown := fmt.Errorf("looking whether there is a user that was refused: %w", errAway)
	g.Expect(mayHaveHappened(unknown, true)).To(BeTrue())
	g.Expect(mayHaveHappened(errRefusedIt, true)).To(BeFalse())
	g.Expect(mayHaveHappened(errOutdated, true)).To(BeFalse())
	g.Expect(mayHaveHappened(errOutdated, false)).To(BeTrue())
}

func TestRenameAndDeleteThatAreRefused(t *testing.T) {
	alice, bob := headscale.User{ID: 3, Name: "alice"}, headscale.User{ID: 3, Name: "bob"}
	for name, test := range map[string]struct {
		answers        answers
		rename, remove error
		lists          int
	}{
		"done":                       {},
		"no answer":                  {answers: answers{answer: errAway, users: []headscale.User{bob}}, rename: errAway, remove: errAway},
		"refused":                    {answers: answers{answer: errRefusedIt, users: []headscale.User{alice}}, rename: errRefusedIt, remove: errRefusedIt, lists: 2},
		"refused, and renamed":       {answers: answers{answer: errRefusedIt, users: []headscale.User{bob}}, remove: errRefusedIt, lists: 2},
		"refused, and deleted":       {answers: answers{answer: errRefusedIt}, rename: errRefusedIt, lists: 2},
		"refused, and no list":       {answers: answers{answer: errRefusedIt, list: errAway}, rename: errRefusedIt, remove: errRefusedIt, lists: 2},
		"another has the name":       {answers: answers{answer: errTaken, users: []headscale.User{bob}}, rename: errTaken, remove: errTaken},
		"it has nodes":               {answers: answers{answer: errNodes}, rename: errNodes, remove: errNodes},
		"there is no such user":      {answers: answers{answer: headscale.ErrUserNotFound}, rename: headscale.ErrUserNotFound},
		"the key is refused instead": {answers: answers{answer: errWrong}, rename: errWrong, remove: errWrong},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(errors.Is(renameUser(t.Context(), &test.answers, 3, "bob"), test.rename)).To(BeTrue())
			g.Expect(errors.Is(removeUser(t.Context(), &test.answers, 3), test.remove)).To(BeTrue())
			g.Expect(test.answers.listed).To(Equal(test.lists))
		})
	}
}
