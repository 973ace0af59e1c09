package main

import (
	"context"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/podrunner"
)

// fieldOwner is who writes what the operator would write, without it.
const fieldOwner = client.FieldOwner("bench")

// tailnet is an operator with one Headscale that runs, and what its users, pre-auth keys and policy
// cost.
type tailnet struct {
	*operatorBench
	settings  *settings
	headscale *v1beta1.Headscale
	pod       *podrunner.Runner
	// socket is a client of Headscale's own socket.
	socket *headscale.Client
	rows   []row
}

// measureTailnet measures HeadscaleUsers, HeadscalePreAuthKeys and a HeadscalePolicy on one Headscale:
// some one after another, many at once, and all of them at rest. At the end the operator is stopped,
// and the same users and keys are made without it.
func measureTailnet(ctx context.Context, settings *settings) (rows []row) {
	inLab(ctx, settings, func(ctx context.Context, l *lab) {
		t := &tailnet{operatorBench: startOperator(ctx, l, 1), settings: settings, headscale: newHeadscale(operatorNamespace, 0)}
		t.headscale.Spec.Config = must(v1beta1.NewHeadscaleConfig(map[string]any{
			"server_url": "https://headscale.example.com", "policy": map[string]any{"mode": "database"},
		}))
		t.headscale.Spec.APIKey.SecretName = v1beta1.DefaultSecretName
		check(l.Admin.Create(ctx, t.headscale.DeepCopy()))
		var stop func()
		t.pod, stop = podrunner.StartInWorld(l.World, client.ObjectKeyFromObject(t.headscale), l.output)
		defer stop()
		t.awaitReady(ctx)
		// Of many calls at once, each waits for those before it.
		t.socket = headscale.NewClient(headscale.UnixSocket(t.pod.HostPath("apikey-manager", v1beta1.DefaultSocketPath)), headscale.WithCallTimeout(limit))
		defer func() { _ = t.socket.Close() }()

		users := t.measureKind(ctx, "HeadscaleUser", userEntry, 0.3, 70)
		keys := t.measureKind(ctx, "HeadscalePreAuthKey", keyEntry, 0.4, 90)
		t.measurePolicy(ctx)
		check(t.Operator.Stop())
		t.compareUsers(ctx, users)
		t.compareKeys(ctx, keys)
		rows = t.rows
	})
	return rows
}

func (t *tailnet) awaitReady(ctx context.Context) {
	must(t.Plane.Kubectl(ctx, "wait", "-n", operatorNamespace, "headscale/"+t.headscale.Name, "--for=condition=Ready", "--timeout=2m"))
}

// entry is an object of a kind with this number, and the list of its kind.
type entry func(namespace, name string) (client.Object, client.ObjectList)

func userEntry(namespace, name string) (client.Object, client.ObjectList) {
	return &v1beta1.HeadscaleUser{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1beta1.HeadscaleUserSpec{HeadscaleRef: newHeadscale("", 0).Name, Username: name},
	}, &v1beta1.HeadscaleUserList{}
}

func keyEntry(namespace, name string) (client.Object, client.ObjectList) {
	return &v1beta1.HeadscalePreAuthKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1beta1.HeadscalePreAuthKeySpec{
			HeadscaleRef: newHeadscale("", 0).Name, Tags: []v1beta1.Tag{"tag:bench"}, Expiration: "24h", SecretKey: "key", Reissue: "Always", RevocationDelay: "0s", DeletionPolicy: "Delete",
		},
	}, &v1beta1.HeadscalePreAuthKeyList{}
}

// watchReady follows the objects of a list's kind. What it returns waits until one of them, if it has a name, and
// as many in all are ready, and returns when they are.
func (t *tailnet) watchReady(ctx context.Context, list client.ObjectList) (await func(ctx context.Context, name string, count int) time.Time) {
	watcher, ready := must(t.Admin.Watch(ctx, list, client.InNamespace(operatorNamespace))), map[string]bool{}
	return func(ctx context.Context, name string, count int) time.Time {
		return must(env.Await(ctx, watcher, func(object client.Object) bool {
			conditions, _ := reflect.ValueOf(object).Elem().FieldByName("Status").FieldByName("Conditions").Interface().([]metav1.Condition)
			ready[object.GetName()] = slices.ContainsFunc(conditions, func(c metav1.Condition) bool {
				return c.Type == v1beta1.ConditionReady && c.Status == metav1.ConditionTrue && c.ObservedGeneration == object.GetGeneration()
			})
			seen := 0
			for _, is := range ready {
				if is {
					seen++
				}
			}
			return seen >= count && (name == "" || ready[name])
		}))
	}
}

// measureKind measures objects of one kind, and returns how long many took.
func (t *tailnet) measureKind(ctx context.Context, kind string, entryOf entry, seconds, memory float64) time.Duration {
	_, list := entryOf("", "")
	await := t.watchReady(ctx, list)
	create := func(ctx context.Context, format string, i int) string {
		object, _ := entryOf(operatorNamespace, fmt.Sprintf(format, i))
		check(t.Admin.Create(ctx, object))
		return object.GetName()
	}
	say("%s: %d one after another", kind, t.settings.runs)
	var took []time.Duration
	for i := range t.settings.runs {
		began := time.Now()
		name := create(ctx, "single-%d", i)
		took = append(took, await(ctx, name, 0).Sub(began))
	}
	many := t.settings.entries
	say("%s: %d at once", kind, many)
	before, asked := t.awaitIdle(ctx), t.requests(ctx)
	began := time.Now()
	var creating errgroup.Group
	creating.Go(func() error { // The API server ends a watch that is not read.
		return attempt(func() { forEach(ctx, many, creators, func(ctx context.Context, i int) { create(ctx, "many-%04d", i) }) })
	})
	made := await(ctx, "", t.settings.runs+many).Sub(began)
	check(creating.Wait())
	used, calls := t.awaitIdle(ctx).since(before), t.requests(ctx)-asked
	t.rows = append(t.rows, kindFigures{
		kind: kind, many: many, took: took, made: made, making: used, calls: calls, rest: t.measureRest(ctx, kind),
		manager: must(t.pod.Process("apikey-manager").Usage()).Proportional,
	}.rows(seconds, memory)...)
	return made
}

// kindFigures are about objects of one kind.
type kindFigures struct {
	kind string
	many int
	// took is how long each of some took, one after another, and made how long many at once.
	took []time.Duration
	made time.Duration
	// making and calls are what many cost, rest what all cost at rest, manager the API Key Manager's memory then.
	making  usage
	calls   int
	rest    restFigures
	manager float64
}

func (f kindFigures) rows(seconds, memory float64) []row {
	each := func(total int) float64 { return float64(total) / float64(f.many) }
	return slices.Concat([]row{
		atMost(f.kind+", applied until Ready, median", "%.2f s", quantile(0.5, f.took).Seconds(), seconds),
		noted(fmt.Sprintf("%d %ss at once, Ready after", f.many, f.kind), "%.1f s", f.made.Seconds()),
		noted("requests to Kubernetes for each "+f.kind+", and of these writes", "%.1f and %.1f", each(f.making.All), each(f.making.Writes)),
		noted("requests to Headscale for each "+f.kind, "%.2f", each(f.calls)),
	}, f.rest.rows("all "+f.kind+"s"), []row{
		atMost("operator's memory (PSS) with the "+f.kind+"s, too", "%.1f MiB", f.rest.Proportional, memory),
		atMost("API Key Manager's memory (PSS) with the operator as its client, "+f.kind+"s", "%.1f MiB", f.manager, 22),
	})
}

// restFigures are what all that there is costs at rest: the operator's usage, and its calls of Headscale.
type restFigures struct {
	usage
	calls int
}

// measureRest measures while nothing happens.
func (t *tailnet) measureRest(ctx context.Context, kind string) restFigures {
	say("%s: at rest for %s", kind, t.settings.rest)
	asked := t.requests(ctx)
	return restFigures{t.watchRest(ctx, t.settings.rest, t.Operator.Process), t.requests(ctx) - asked}
}

func (f restFigures) rows(with string) []row {
	return []row{
		noted("requests to Headscale in 30 s at rest, with "+with, "%.1f", 30*float64(f.calls)/f.took.Seconds()),
		atMost("requests to Kubernetes at rest, with "+with, "%.0f", float64(f.All), 0),
	}
}

var adminRequests = regexp.MustCompile(`(?m)^headscale_apikey_admin_requests_total\{.*\} (\d+)$`)

// requests are those to Headscale so far, all through the admin endpoint.
func (t *tailnet) requests(ctx context.Context) (total int) {
	_, text, err := env.Get(ctx, "http://"+t.pod.Address("apikey-manager", "apikey-metrics")+"/metrics", "")
	check(err)
	for _, match := range adminRequests.FindAllStringSubmatch(text, -1) {
		total += must(strconv.Atoi(match[1]))
	}
	return total
}

// measurePolicy measures changes of a policy: over the socket, and of a HeadscalePolicy; and that one at rest.
func (t *tailnet) measurePolicy(ctx context.Context) {
	say("HeadscalePolicy: %d changes", t.settings.runs)
	var plain, took []time.Duration
	for i := range t.settings.runs {
		began := time.Now()
		must(t.socket.SetPolicy(ctx, policyText(i)))
		plain = append(plain, time.Since(began))
	}
	policy := &v1beta1.HeadscalePolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "policy"},
		Spec:       v1beta1.HeadscalePolicySpec{HeadscaleRef: t.headscale.Name, HuJSON: policyText(t.settings.runs)},
	}
	await := t.watchReady(ctx, &v1beta1.HeadscalePolicyList{})
	check(t.Admin.Create(ctx, policy.DeepCopy()))
	await(ctx, policy.Name, 0)
	for i := range t.settings.runs {
		began := time.Now()
		check(t.Admin.Patch(ctx, policy.DeepCopy(), client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"hujson":%q}}`, policyText(i)))))
		took = append(took, await(ctx, policy.Name, 0).Sub(began))
	}
	t.awaitIdle(ctx)
	t.rows = append(t.rows, policyRows(plain, took, t.measureRest(ctx, "HeadscalePolicy"))...)
}

// policyRows are about changes of the policy, over the socket and of a HeadscalePolicy, and about that one at rest.
func policyRows(plain, took []time.Duration, rest restFigures) []row {
	put := quantile(0.5, plain)
	return append([]row{
		noted("a policy's PUT over the socket, median", "%.3f s", put.Seconds()),
		atMost("HeadscalePolicy, changed until in force, beyond that, median", "%.3f s", (quantile(0.5, took) - put).Seconds(), 0.2),
	}, rest.rows("the HeadscalePolicy, too")...)
}

func policyText(i int) string {
	return fmt.Sprintf(`{"hosts": {"server": "100.64.0.%d"}, "acls": [{"action": "accept", "src": ["*"], "dst": ["server:*"]}]}`, i+1)
}

// compareUsers makes as many users without the operator, with the same calls and writes.
func (t *tailnet) compareUsers(ctx context.Context, made time.Duration) {
	say("as many users without the operator")
	began := time.Now()
	forEach(ctx, t.settings.entries, appliers, func(ctx context.Context, i int) {
		object, _ := userEntry(operatorNamespace+baselineSuffix, fmt.Sprintf("least-%04d", i))
		user := object.(*v1beta1.HeadscaleUser) //nolint:errcheck // it is one
		check(t.Admin.Create(ctx, user))
		t.mark(ctx, user, v1beta1.FinalizerUser)
		entry := must(t.socket.CreateUser(ctx, headscale.NewUser{Name: user.Name}))
		t.report(ctx, user, fmt.Sprintf(`{"status":{"userId":%d}}`, entry.ID))
		t.event(ctx, user)
	})
	t.rows = append(t.rows, compareRows("HeadscaleUser", made, time.Since(began))...)
}

// compareRows compare objects with the same made without the operator.
func compareRows(kind string, made, least time.Duration) []row {
	return []row{
		noted("the same calls and writes without the operator, "+kind+"s", "%.1f s", least.Seconds()),
		atMost("time with the operator as against that, "+kind+"s", "%.2f", made.Seconds()/least.Seconds(), 2),
	}
}

// compareKeys makes as many pre-auth keys without the operator, with the same calls and writes.
func (t *tailnet) compareKeys(ctx context.Context, made time.Duration) {
	say("as many pre-auth keys without the operator")
	began := time.Now()
	forEach(ctx, t.settings.entries, appliers, func(ctx context.Context, i int) {
		object, _ := keyEntry(operatorNamespace+baselineSuffix, fmt.Sprintf("least-%04d", i))
		check(t.Admin.Create(ctx, object))
		t.mark(ctx, object, v1beta1.FinalizerPreAuthKey)
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace + baselineSuffix, Name: object.GetName()}}
		check(t.Admin.Create(ctx, secret))
		key := must(t.socket.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{Tags: []string{"tag:bench"}, Expiration: time.Now().Add(24 * time.Hour)}))
		check(t.Admin.Patch(ctx, secret, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"stringData":{"key":%q}}`, key.Key.Reveal()))))
		t.report(ctx, object, fmt.Sprintf(`{"status":{"keyId":%d}}`, key.ID))
		t.event(ctx, object)
	})
	t.rows = append(t.rows, compareRows("HeadscalePreAuthKey", made, time.Since(began))...)
}

// mark writes an annotation, as the operator does, or a finalizer, which costs the same.
func (t *tailnet) mark(ctx context.Context, object client.Object, name string) {
	check(t.Admin.Patch(ctx, object, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"now"}}}`, name)), fieldOwner))
}

// report writes a status, as the operator does.
func (t *tailnet) report(ctx context.Context, object client.Object, patch string) {
	check(t.Admin.Status().Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)), fieldOwner))
}

// event writes an event, as the operator does.
func (t *tailnet) event(ctx context.Context, about client.Object) {
	check(t.Admin.Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: about.GetNamespace(), GenerateName: "event-"}, EventTime: metav1.NowMicro(), Type: corev1.EventTypeNormal,
		Reason: "Created", Action: "Reconcile", Note: "Created without the operator", ReportingController: string(fieldOwner), ReportingInstance: string(fieldOwner),
		Regarding: corev1.ObjectReference{APIVersion: v1beta1.GroupVersion.String(), Kind: "HeadscaleUser", Namespace: about.GetNamespace(), Name: about.GetName(), UID: about.GetUID()},
	}))
}
