package plugin

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// userReport is how a HeadscaleUser is.
type userReport struct {
	objectReport
	// Username is the name that the user is to have in Headscale, and UserID its id there.
	Username string `json:"username"`
	UserID   uint64 `json:"userId,omitempty"`
	// CreatedAt is when the user was created in Headscale.
	CreatedAt *metav1.Time `json:"createdAt,omitempty"`
	// OnDeletion is what happens to the user when the HeadscaleUser is deleted: Delete or Retain.
	OnDeletion v1beta1.DeletionPolicy `json:"onDeletion"`
}

// users is the kind HeadscaleUser.
var users = &within[v1beta1.HeadscaleUser, *userReport]{
	kind: v1beta1.KindUser, resource: "headscaleusers", short: []string{"hsuser"},
	columns: []string{"USERNAME", "ID", "AGE"}, wider: []string{"CREATED", "DELETION"}, newList: func() runtime.Object { return &v1beta1.HeadscaleUserList{} }, describe: describeUser,
}

// usersCommand is kubectl headscale users.
func (a *app) usersCommand() *cobra.Command {
	return withinCommand(a, users, &cobra.Command{
		Use:     "users [NAME]",
		Aliases: []string{"user"},
		Short:   "Show the HeadscaleUsers and their users in Headscale",
		Long: `Shows how a HeadscaleUser is: its user in Headscale, and what is wrong. Without NAME, all
HeadscaleUsers of the namespace are shown, or of all namespaces with -A.

Exits with status 3 if one of those that are shown is not ready.`,
		Example: `  kubectl headscale users
  kubectl headscale users alice -o json`,
	})
}

// describeUser returns the state of a HeadscaleUser.
func describeUser(user *v1beta1.HeadscaleUser, _ time.Time) *userReport {
	report := &userReport{
		objectReport: describeObject(&user.ObjectMeta, user.Status.ObservedGeneration, user.Status.Conditions),
		Username:     user.Spec.Username, UserID: user.Status.UserID, CreatedAt: user.Status.CreatedAt, OnDeletion: v1beta1.DeletionPolicyDelete,
	}
	report.Headscale, report.HeadscaleNamespace = user.Spec.HeadscaleRef, user.HeadscaleNamespace()
	if user.Retained() {
		report.OnDeletion = v1beta1.DeletionPolicyRetain
	}
	return report
}

func (u *userReport) fields(_ screen, now time.Time) []field {
	id := "not known yet"
	if u.UserID != 0 {
		id = fmt.Sprint(u.UserID)
	}
	all := []field{{"Username", u.Username, plain}, {"Id", id, plain}}
	if u.CreatedAt != nil {
		all = append(all, field{"Age", fmt.Sprintf("%s, since %s", span(now.Sub(u.CreatedAt.Time)), instant(u.CreatedAt.Time)), plain})
	}
	return append(all, field{"Deletion", string(u.OnDeletion), plain})
}

func (u *userReport) row(_ screen, now time.Time) []cell {
	id, age := "-", "-"
	if u.UserID != 0 {
		id = fmt.Sprint(u.UserID)
	}
	if u.CreatedAt != nil {
		age = span(now.Sub(u.CreatedAt.Time))
	}
	return []cell{{u.Username, plain}, {id, plain}, {age, plain}}
}

func (u *userReport) more(time.Time) []cell {
	created := "-"
	if u.CreatedAt != nil {
		created = instant(u.CreatedAt.Time)
	}
	return []cell{{created, plain}, {string(u.OnDeletion), plain}}
}
