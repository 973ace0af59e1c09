package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// objectReport is the state of an object that exists within a Headscale, such as a HeadscaleUser.
type objectReport struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Headscale and HeadscaleNamespace name the Headscale that it refers to.
	Headscale          string `json:"headscale"`
	HeadscaleNamespace string `json:"headscaleNamespace"`
	// Ready is whether the condition Ready is true for the current spec.
	Ready bool `json:"ready"`
	// Reason is why, as the condition says it; "" where the operator has not seen the object.
	Reason string `json:"reason"`
	// Problem says what is wrong in one line; "" where nothing is.
	Problem string `json:"problem"`
	// Conditions are the conditions of the object.
	Conditions []metav1.Condition `json:"conditions"`
}

// object returns what every kind's report has.
func (o *objectReport) object() *objectReport { return o }

// where names the Headscale, with its namespace where that is another one.
func (o *objectReport) where() string {
	if o.HeadscaleNamespace == o.Namespace {
		return o.Headscale
	}
	return o.HeadscaleNamespace + "/" + o.Headscale
}

// describeObject returns the state of an object, by its conditions and their generation.
func describeObject(object *metav1.ObjectMeta, observed int64, conditions []metav1.Condition) objectReport {
	report := objectReport{Namespace: object.Namespace, Name: object.Name, Conditions: append([]metav1.Condition{}, conditions...)}
	ready := meta.FindStatusCondition(conditions, v1beta1.ConditionReady)
	if ready != nil {
		report.Reason = ready.Reason
	}
	isSeen := observed >= object.Generation
	report.Ready = ready != nil && ready.Status == metav1.ConditionTrue && isSeen && object.DeletionTimestamp.IsZero()
	report.Problem = objectProblem(object, ready, isSeen)
	return report
}

// objectProblem says in one line what is wrong with an object, or "".
func objectProblem(object *metav1.ObjectMeta, ready *metav1.Condition, isSeen bool) string {
	switch {
	case !object.DeletionTimestamp.IsZero() && ready != nil && ready.Status != metav1.ConditionTrue:
		return oneLine("it is being deleted: " + ready.Message)
	case !object.DeletionTimestamp.IsZero():
		return "it is being deleted"
	case ready == nil:
		return "the operator has not observed it yet; " + whereOperator
	case !isSeen:
		return "the operator has not observed the last change yet; " + whereOperator
	case ready.Status != metav1.ConditionTrue:
		return oneLine(ready.Reason + ": " + ready.Message)
	}
	_, warning, _ := strings.Cut(ready.Message, v1beta1.WarningsIntro)
	return oneLine(warning)
}

// shown is a report on one object: in full, as a row of a table without the name, and with the
// additional columns of a wide table.
type shown interface {
	object() *objectReport
	fields(s screen, now time.Time) []field
	row(s screen, now time.Time) []cell
	more(now time.Time) []cell
}

// within is a kind of what exists within a Headscale, with objects T that are shown as R.
type within[T any, R shown] struct {
	// kind and resource are its names in the API, and short is what else kubectl calls it.
	kind, resource string
	short          []string
	// columns are the headings of the rows, between NAME and PROBLEM, and wider those of a wide table.
	columns, wider []string

	newList  func() runtime.Object
	describe func(object *T, now time.Time) R
}

// names are the ways in which kubectl writes the kind before a name.
func (w *within[T, R]) names() []string {
	singular := strings.ToLower(w.kind)
	return append([]string{singular, w.resource, singular + "." + v1beta1.GroupName, w.resource + "." + v1beta1.GroupName}, w.short...)
}

// withinCommand completes a command so that it shows the objects of a kind.
func withinCommand[T any, P interface {
	*T
	runtime.Object
}, R shown](a *app, w *within[T, R], command *cobra.Command) *cobra.Command {
	var all bool
	var format tableOutput
	command.Args = func(c *cobra.Command, args []string) error {
		if all && len(args) > 0 {
			return usagef("-A shows the %ss of all namespaces: leave out the NAME, or name its namespace with -n", w.kind)
		}
		return oneNameOf(c, args, w.kind, w.names())
	}
	command.ValidArgsFunction = func(c *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.completeOne(c, args, typed, func(ctx context.Context, c *cluster) ([]string, error) {
			found, err := readWithin[T, P](ctx, c, w, nil, c.namespace, a.Now())
			return namesOf(found), err
		})
	}
	command.RunE = func(c *cobra.Command, args []string) error {
		cluster, err := a.cluster()
		if err != nil {
			return err
		}
		namespace := cluster.namespace
		if all {
			namespace = metav1.NamespaceAll
		}
		found, err := readWithin[T, P](c.Context(), cluster, w, args, namespace, a.Now())
		if err != nil {
			return err
		}
		columns := w.columns
		if format.wide {
			columns = slices.Concat(w.columns, w.wider)
		}
		return a.showWithin(w.kind, columns, len(args) > 0, namespace, &format, asShown(found))
	}
	command.Flags().BoolVarP(&all, "all-namespaces", "A", false, "show the "+w.kind+"s of all namespaces")
	format.addTo(command)
	return command
}

// asShown are reports of one kind as reports of any.
func asShown[R shown](found []R) []shown {
	reports := make([]shown, len(found))
	for i := range found {
		reports[i] = found[i]
	}
	return reports
}

// namesOf are the names of objects.
func namesOf[R shown](found []R) []string {
	names := make([]string, len(found))
	for i := range found {
		names[i] = found[i].object().Name
	}
	return names
}

// readWithin reads the object that the arguments name, or all of a namespace (of all with "").
func readWithin[T any, P interface {
	*T
	runtime.Object
}, R shown](ctx context.Context, c *cluster, w *within[T, R], args []string, namespace string, now time.Time) ([]R, error) {
	var found []T
	var err error
	if len(args) > 0 {
		found = make([]T, 1)
		err = getWithin(ctx, c, w, args[0], P(&found[0]))
	} else {
		found, err = listKind[T, P](ctx, c, w.resource, namespace, w.newList)
	}
	if err != nil && kindMissing(err) {
		err = errors.New("the cluster does not know the kind " + w.kind + " (" + v1beta1.GroupVersion.String() + "): install the operator, or a newer release of it, first")
	}
	reports := make([]R, len(found))
	for i := range found {
		reports[i] = w.describe(&found[i], now)
	}
	return reports, err
}

// getWithin reads the object that an argument names.
func getWithin[T any, R shown](ctx context.Context, c *cluster, w *within[T, R], argument string, into runtime.Object) error {
	name, err := nameOf(argument, w.kind, w.names())
	if err != nil {
		return err
	}
	err = c.rest.Get().Namespace(c.namespace).Resource(w.resource).Name(name).Do(ctx).Into(into)
	if apierrors.IsNotFound(err) && !kindMissing(err) {
		return fmt.Errorf("there is no %s %q in namespace %s; kubectl get %s -A shows all that there are", w.kind, name, c.namespace, w.resource)
	}
	return err
}

// showWithin prints the state of objects of a kind: one in full, several in a table. If one is not
// ready, it returns an error without a message.
func (a *app) showWithin(kind string, columns []string, named bool, namespace string, format *tableOutput, reports []shown) error {
	out, s := a.Streams.Out, newScreen(a.Streams.Out, a.Getenv)
	switch {
	case format.output != "" && named:
		if err := format.write(out, reports[0]); err != nil {
			return err
		}
	case format.output != "":
		if err := format.write(out, list[shown]{Items: reports}); err != nil {
			return err
		}
	case len(reports) == 0 && namespace == metav1.NamespaceAll:
		_, _ = fmt.Fprintf(a.Streams.ErrOut, "There is no %s in any namespace.\n", kind)
	case len(reports) == 0:
		_, _ = fmt.Fprintf(a.Streams.ErrOut, "There is no %s in namespace %s; -A shows those of all namespaces.\n", kind, namespace)
	case len(reports) == 1 && namespace != metav1.NamespaceAll && !format.wide:
		s.showObject(out, kind, reports[0], a.Now())
	default:
		s.showObjects(out, columns, reports, namespace == metav1.NamespaceAll, format.wide, a.Now())
	}
	if slices.ContainsFunc(reports, func(report shown) bool { return !report.object().Ready }) {
		return errNotReady
	}
	return nil
}

// showObject prints the state of an object in full.
func (s screen) showObject(out io.Writer, kind string, report shown, now time.Time) {
	object := report.object()
	state := cellOfState(object.Ready, object.Reason, object.Problem)
	all := append([]field{
		{kind, fmt.Sprintf("%s/%s: %s", object.Namespace, object.Name, state.text), state.as},
		{"Headscale", object.HeadscaleNamespace + "/" + object.Headscale, plain},
	}, report.fields(s, now)...)
	s.fields(out, append(all, problemField(object.Ready, object.Problem)))
	s.conditions(out, object.Conditions, now)
}

// showObjects prints the state of several objects in a table.
func (s screen) showObjects(out io.Writer, columns []string, reports []shown, all, wide bool, now time.Time) {
	names := append(append([]string{"NAME", "HEADSCALE"}, columns...), "STATE", "PROBLEM")
	if all {
		names = append([]string{"NAMESPACE"}, names...)
	}
	rows := [][]cell{headings(names...)}
	for _, report := range reports {
		object := report.object()
		row := append([]cell{{object.Name, plain}, {object.where(), plain}}, report.row(s, now)...)
		if wide {
			row = append(row, report.more(now)...)
		}
		row = append(row, cellOfState(object.Ready, object.Reason, object.Problem), cell{object.Problem, plain})
		if all {
			row = append([]cell{{object.Namespace, plain}}, row...)
		}
		rows = append(rows, row)
	}
	s.table(out, rows)
}
