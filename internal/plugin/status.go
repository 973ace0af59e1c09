package plugin

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Columns that the bar of the time left has.
const (
	barOfOne  = 20
	barOfMany = 10
)

// statusCommand is kubectl headscale status.
func (a *app) statusCommand() *cobra.Command {
	var all bool
	var format output
	command := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show how Headscales and their keys are",
		Long: `Shows how a Headscale is: its pod, its API key, when that is replaced, and what is
wrong. Without NAME, all Headscales of the namespace are shown, or of all namespaces
with -A.

Ends with status 3 if one of those that are shown is not ready.`,
		Example: `  kubectl headscale status
  kubectl headscale status headscale -o json
  kubectl headscale status -A`,
		Args: func(c *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usagef("-A shows the Headscales of all namespaces: leave out the NAME, or name its namespace with -n")
			}
			return oneName(c, args)
		},
		ValidArgsFunction: a.completeName,
		RunE: func(c *cobra.Command, args []string) error {
			return a.status(c.Context(), args, all, &format)
		},
	}
	command.Flags().BoolVarP(&all, "all-namespaces", "A", false, "show the Headscales of all namespaces")
	format.addTo(command)
	return command
}

// status shows how Headscales are.
func (a *app) status(ctx context.Context, args []string, all bool, format *output) error {
	c, err := a.cluster()
	if err != nil {
		return err
	}
	reports, err := a.reports(ctx, c, args, all)
	if err != nil {
		return err
	}
	if err := a.showReports(reports, len(args) > 0, all, c.namespace, format); err != nil {
		return err
	}
	for i := range reports {
		if !reports[i].Ready {
			return errNotReady
		}
	}
	return nil
}

// reports looks at the Headscales that are asked for.
func (a *app) reports(ctx context.Context, c *cluster, args []string, all bool) ([]statusReport, error) {
	if len(args) > 0 {
		headscale, err := c.named(ctx, args[0])
		if err != nil {
			return nil, err
		}
		return c.describeAll(ctx, []v1beta1.Headscale{*headscale}, headscale.Namespace, a.Now())
	}
	namespace := c.namespace
	if all {
		namespace = metav1.NamespaceAll
	}
	headscales, err := c.listHeadscales(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return c.describeAll(ctx, headscales, namespace, a.Now())
}

// showReports prints how Headscales are: one in full, several in a table.
func (a *app) showReports(reports []statusReport, named, all bool, namespace string, format *output) error {
	out := a.Streams.Out
	switch {
	case *format != "" && named:
		return format.write(out, reports[0])
	case *format != "":
		return format.write(out, list[statusReport]{Items: reports})
	case len(reports) == 0 && all:
		_, _ = fmt.Fprintln(a.Streams.ErrOut, "There is no Headscale in any namespace.")
	case len(reports) == 0:
		_, _ = fmt.Fprintf(a.Streams.ErrOut, "There is no Headscale in namespace %s; -A shows those of all namespaces.\n", namespace)
	case len(reports) == 1 && !all:
		newScreen(out, a.Getenv).showOne(out, &reports[0], a.Now())
	default:
		newScreen(out, a.Getenv).showMany(out, reports, all, a.Now())
	}
	return nil
}

// describeAll reads what belongs to Headscales, and says how they are.
func (c *cluster) describeAll(ctx context.Context, headscales []v1beta1.Headscale, namespace string, now time.Time) ([]statusReport, error) {
	look := c.lookAtEach
	if len(headscales) > 1 {
		look = c.lookAtAll
	}
	pods, secrets, err := look(ctx, headscales, namespace)
	if err != nil {
		return nil, err
	}
	reports := make([]statusReport, len(headscales))
	for i := range headscales {
		reports[i] = describe(&headscales[i], pods(&headscales[i]), secrets(&headscales[i]), now)
	}
	return reports, nil
}

// The pod and the Secret of a Headscale, among those that were read.
type (
	podsView    func(*v1beta1.Headscale) podView
	secretsView func(*v1beta1.Headscale) secretView
)

// lookAtEach reads by name, for which rights on those names are enough. There is one
// Headscale at most.
func (c *cluster) lookAtEach(ctx context.Context, headscales []v1beta1.Headscale, _ string) (podsView, secretsView, error) {
	var pod podView
	var secret secretView
	for i := range headscales {
		var err error
		if pod, err = c.viewPod(ctx, &headscales[i]); err != nil {
			return nil, nil, err
		}
		if secret, err = c.viewSecret(ctx, &headscales[i]); err != nil {
			return nil, nil, err
		}
	}
	return func(*v1beta1.Headscale) podView { return pod }, func(*v1beta1.Headscale) secretView { return secret }, nil
}

// lookAtAll reads with one request for all pods, and one for all Secrets.
func (c *cluster) lookAtAll(ctx context.Context, _ []v1beta1.Headscale, namespace string) (podsView, secretsView, error) {
	pods, err := c.listPods(ctx, namespace)
	podsForbidden := apierrors.IsForbidden(err)
	if err != nil && !podsForbidden {
		return nil, nil, err
	}
	secrets, err := c.listSecretMetadata(ctx, namespace)
	secretsForbidden := apierrors.IsForbidden(err)
	if err != nil && !secretsForbidden {
		return nil, nil, err
	}
	podsByName := map[types.NamespacedName]*corev1.Pod{}
	for i := range pods {
		podsByName[types.NamespacedName{Namespace: pods[i].Namespace, Name: pods[i].Name}] = &pods[i]
	}
	secretsByName := map[types.NamespacedName]*metav1.PartialObjectMetadata{}
	for i := range secrets {
		secretsByName[types.NamespacedName{Namespace: secrets[i].Namespace, Name: secrets[i].Name}] = &secrets[i]
	}
	return func(h *v1beta1.Headscale) podView {
			return podView{podsByName[types.NamespacedName{Namespace: h.Namespace, Name: podName(h)}], podsForbidden}
		}, func(h *v1beta1.Headscale) secretView {
			return secretView{secretsByName[types.NamespacedName{Namespace: h.Namespace, Name: h.Spec.APIKey.EffectiveSecretName()}], secretsForbidden}
		}, nil
}

// viewPod reads the pod of a Headscale as far as that is allowed.
func (c *cluster) viewPod(ctx context.Context, headscale *v1beta1.Headscale) (podView, error) {
	pod, err := c.pod(ctx, headscale.Namespace, podName(headscale))
	switch {
	case apierrors.IsForbidden(err):
		return podView{forbidden: true}, nil
	case apierrors.IsNotFound(err):
		return podView{}, nil
	default:
		return podView{pod: pod}, err
	}
}

// viewSecret reads the metadata of a Headscale's Secret as far as that is allowed.
func (c *cluster) viewSecret(ctx context.Context, headscale *v1beta1.Headscale) (secretView, error) {
	metadata, err := c.secretMetadata(ctx, headscale.Namespace, headscale.Spec.APIKey.EffectiveSecretName())
	switch {
	case apierrors.IsForbidden(err):
		return secretView{forbidden: true}, nil
	case apierrors.IsNotFound(err):
		return secretView{}, nil
	default:
		return secretView{metadata: metadata}, err
	}
}

// showOne prints how a Headscale is in full.
func (s screen) showOne(out io.Writer, report *statusReport, now time.Time) {
	state := cellOfReady(report)
	all := []field{
		{"Headscale", fmt.Sprintf("%s/%s, %s: %s", report.Namespace, report.Name, report.Version, state.text), state.as},
		{"Pod", podLine(report, now), plain},
	}
	all = append(all, s.keyFields(&report.Key, now)...)
	wrong := field{"Problem", "none", green}
	if report.Problem != "" {
		wrong = field{"Problem", report.Problem, red}
		if report.Ready {
			wrong.as = yellow
		}
	}
	all = append(all, wrong)
	for _, what := range report.Unread {
		all = append(all, field{"Unread", "you are not allowed to read " + what, yellow})
	}
	s.fields(out, all)
	if len(report.Conditions) == 0 {
		return
	}
	_, _ = fmt.Fprintln(out)
	rows := [][]cell{headings("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE")}
	for i := range report.Conditions {
		c := &report.Conditions[i]
		rows = append(rows, []cell{{c.Type, plain}, {string(c.Status), plain}, {c.Reason, plain},
			{span(now.Sub(c.LastTransitionTime.Time)), plain}, {oneLine(c.Message), plain}})
	}
	s.table(out, rows)
}

// cellOfReady is whether a Headscale is ready, in a word.
func cellOfReady(report *statusReport) cell {
	switch {
	case !report.Ready && (report.Reason == "" || report.Reason == v1beta1.ReasonReady):
		return cell{"NotReady", red}
	case !report.Ready:
		return cell{report.Reason, red}
	case report.Problem != "":
		return cell{report.Reason, yellow}
	default:
		return cell{report.Reason, green}
	}
}

// podLine says how a pod is in a line.
func podLine(report *statusReport, now time.Time) string {
	pod := report.Pod
	switch {
	case report.podForbidden:
		return report.Name + "-0: not known"
	case pod == nil:
		return report.Name + "-0: there is none"
	}
	ready, restarts := 0, int32(0)
	trouble := ""
	for _, container := range pod.Containers {
		if container.Ready {
			ready++
		}
		restarts += container.Restarts
		if container.State != "Running" {
			trouble += fmt.Sprintf("; %s: %s", container.Name, container.State)
		}
	}
	return fmt.Sprintf("%s: %s for %s, %d of %d containers ready, %d restarts%s", pod.Name, pod.Phase,
		span(now.Sub(pod.CreatedAt.Time)), ready, len(pod.Containers), restarts, trouble)
}

// showMany prints how several Headscales are in a table.
func (s screen) showMany(out io.Writer, reports []statusReport, all bool, now time.Time) {
	columns := []string{"NAME", "VERSION", "STATE", "KEY", "LEFT", "ROTATION", "PROBLEM"}
	if all {
		columns = append([]string{"NAMESPACE"}, columns...)
	}
	rows := [][]cell{headings(columns...)}
	for i := range reports {
		report := &reports[i]
		left, rotation := cell{"-", plain}, "-"
		if report.Key.Expiration != nil {
			left = s.timeLeft(&report.Key, barOfMany, now)
		}
		if report.Key.NextRotation != nil {
			rotation = until(report.Key.NextRotation.Time, now)
		}
		row := []cell{{report.Name, plain}, {report.Version, plain}, cellOfReady(report), {orDash(report.Key.Prefix), plain},
			left, {rotation, plain}, {report.Problem, plain}}
		if all {
			row = append([]cell{{report.Namespace, plain}}, row...)
		}
		rows = append(rows, row)
	}
	s.table(out, rows)
}

// orDash is a text, or "-" in the place of none.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// until says how long it is to a time, or since.
func until(t, now time.Time) string {
	if d := t.Sub(now); d >= 0 {
		return "in " + span(d)
	}
	return span(now.Sub(t)) + " late"
}
