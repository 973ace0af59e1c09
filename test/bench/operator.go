package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	controller "infrado.cloud/headscale-operator/internal/controller/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/env"
)

const (
	// operatorNamespace has the operator's Headscales, and with the suffix the objects that no operator made.
	operatorNamespace, baselineSuffix = "bench", "-baseline"
	// creators is how many objects are made at the same time. Without the operator, that is appliers for users and
	// keys, and maxAppliers for Headscales: with fewer, the API server is not always busy. Of the
	// Headscales, some are changed, one after another.
	creators, appliers, maxAppliers, changes = 8, 16, 64, 20
	// quiet is how long the operator must ask for nothing to count as idle.
	quiet = 5 * time.Second
	// wantedSize is the number of Headscales about which most rows are, and fewest how many are a
	// few: what fewer cost each is mostly what the operator costs without any. rounds is how often
	// the operator is compared with the least possible.
	wantedSize, fewest, rounds = 100, 20, 14
)

// operatorBench is an operator in a lab of its own, and what a number of Headscales costs there.
type operatorBench struct {
	*lab
	// namespace is where it has its Headscales, and sets reports the StatefulSets there.
	namespace string
	sets      watch.Interface
	// generations are those of the StatefulSets that were seen.
	generations map[string]int64
	size        int
	// made is how long after the first Headscale was created all StatefulSets existed; remade is that of each
	// round, baseline how long the round took without the operator, and ratios what the one is of the other.
	made             time.Duration
	remade, baseline []time.Duration
	ratios           []float64
	// idle is before there was any Headscale, making until all was done for the Headscales,
	// noOps for changes that mean nothing, and resting while nothing happened.
	idle, making, noOps, resting usage
	// changing is, for each change of a Headscale, how long after it the StatefulSet changed.
	changing []time.Duration
}

// measureOperators measures the operator with each number of Headscales, on a fresh API server.
func measureOperators(ctx context.Context, settings *settings) []row {
	var all []*operatorBench
	for _, size := range settings.sizes {
		inLab(ctx, settings, func(ctx context.Context, l *lab) {
			b := startOperator(ctx, l, size)
			b.measure(ctx, settings.rest)
			all = append(all, b)
		})
	}
	return operatorRows(all)
}

// startOperator starts an operator for a number of Headscales.
func startOperator(ctx context.Context, l *lab, size int) *operatorBench {
	check(l.StartOperator(ctx))
	return newOperatorBench(ctx, l, size, operatorNamespace)
}

// newOperatorBench makes a namespace for them, and watches what StatefulSets there are.
func newOperatorBench(ctx context.Context, l *lab, size int, namespace string) *operatorBench {
	for _, name := range []string{namespace, namespace + baselineSuffix} {
		check(l.Admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	sets := must(l.Admin.Watch(ctx, &appsv1.StatefulSetList{}, client.InNamespace(namespace)))
	return &operatorBench{lab: l, namespace: namespace, sets: sets, generations: map[string]int64{}, size: size}
}

func (b *operatorBench) measure(ctx context.Context, rest time.Duration) {
	b.idle = b.awaitIdle(ctx)
	say("%d Headscales: making them", b.size)
	b.makeAll(ctx)
	made := b.awaitIdle(ctx)
	b.making = made.since(b.idle)
	say("%d Headscales: changes without effect, and then of some", b.size)
	forEach(ctx, b.size, creators, func(ctx context.Context, i int) {
		b.patch(ctx, i, `{"metadata":{"annotations":{"example.com/note":"no effect"}}}`)
	})
	b.noOps = b.awaitIdle(ctx).since(made)
	b.change(ctx, func() {})
	b.awaitIdle(ctx)
	say("%d Headscales: at rest for %s", b.size, rest)
	b.resting = b.watchRest(ctx, rest, b.Operator.Process)
	if b.size == wantedSize {
		b.compare(ctx)
	}
}

// makeAll creates the Headscales and waits for their StatefulSets.
func (b *operatorBench) makeAll(ctx context.Context) {
	began := time.Now()
	forEach(ctx, b.size, creators, func(ctx context.Context, i int) {
		check(b.Admin.Create(ctx, newHeadscale(b.namespace, i)))
	})
	b.made = b.awaitSets(ctx, func(string) bool { return len(b.generations) == b.size }).Sub(began)
}

// compare makes as many Headscales with the operator and without it, again and again, each first in turn. None of
// their objects remain.
func (b *operatorBench) compare(ctx context.Context) {
	check(b.Operator.Stop())
	for i := range rounds {
		r := newOperatorBench(ctx, b.lab, b.size, fmt.Sprintf("%s-%d", operatorNamespace, i))
		for turn := range 2 {
			if (i+turn)%2 == 0 {
				check(b.StartOperator(ctx))
				r.awaitIdle(ctx)
				r.makeAll(ctx)
				r.awaitIdle(ctx)
				r.sets.Stop()
				check(b.Operator.Stop())
				b.remade = append(b.remade, r.made)
			} else {
				b.baseline = append(b.baseline, r.makeBaseline(ctx))
			}
			for _, kind := range []client.Object{&v1beta1.Headscale{}, &appsv1.StatefulSet{}, &corev1.Service{}, &corev1.ConfigMap{}, &corev1.ServiceAccount{}, &rbacv1.Role{}, &rbacv1.RoleBinding{}} {
				for _, namespace := range []string{r.namespace, r.namespace + baselineSuffix} {
					check(b.Admin.DeleteAllOf(ctx, kind, client.InNamespace(namespace)))
				}
			}
			pause(ctx, quiet)
		}
		b.ratios = append(b.ratios, b.remade[i].Seconds()/b.baseline[i].Seconds())
		say("%d Headscales: %.2f times the least possible, %d of %d", b.size, b.ratios[i], i+1, rounds)
	}
}

// change changes the config of Headscales, each when the one before has its changed StatefulSet
// and what else must be is awaited.
func (b *operatorBench) change(ctx context.Context, await func()) {
	levels := []string{"debug", "info", "warn", "error"}
	for i := range changes {
		await()
		number := i * b.size / changes
		name := newHeadscale(operatorNamespace, number).Name
		set := &appsv1.StatefulSet{}
		check(b.Admin.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: name}, set))
		b.patch(ctx, number, fmt.Sprintf(`{"spec":{"config":{"log":{"level":%q}}}}`, levels[i%len(levels)]))
		began := time.Now()
		changed := b.awaitSets(ctx, func(seen string) bool { return seen == name && b.generations[name] > set.Generation })
		b.changing = append(b.changing, changed.Sub(began))
	}
}

// makeBaseline makes as many Headscales with all their objects, with the operator's rights, but without it and
// without any of its questions: what remains is what the API server takes for the objects.
func (b *operatorBench) makeBaseline(ctx context.Context) time.Duration {
	config := must(clientcmd.BuildConfigFromFlags("", b.Operator.Kubeconfig))
	config.QPS = -1
	account := must(client.New(config, client.Options{Scheme: b.Admin.Scheme(), Mapper: b.Admin.RESTMapper()}))
	check(account.List(ctx, &corev1.ServiceList{}, client.Limit(1))) // The operator is connected, too.
	decoder := serializer.NewCodecFactory(b.Admin.Scheme()).UniversalDeserializer()
	began := time.Now()
	forEach(ctx, b.size, maxAppliers, func(ctx context.Context, i int) {
		headscale := newHeadscale(b.namespace+baselineSuffix, i)
		check(b.Admin.Create(ctx, headscale))
		want := must(resources.Build(headscale, resources.Options{ManagerImage: env.ManagerImage}))
		for _, object := range []runtime.ApplyConfiguration{want.ServiceAccount, want.Role, want.RoleBinding, want.ConfigMap, want.Service, want.MetricsService, want.StatefulSet} {
			raw := must(json.Marshal(object))
			reply, _ := must(runtime.Decode(decoder, raw)).(client.Object)
			check(account.Patch(ctx, reply, client.RawPatch(types.ApplyPatchType, raw), client.FieldOwner(controller.FieldManager)))
		}
	})
	return time.Since(began)
}

// newHeadscale is one as a user makes it who leaves all defaults. A Secret belongs to one Headscale.
func newHeadscale(namespace string, number int) *v1beta1.Headscale {
	name := fmt.Sprintf("headscale-%03d", number)
	config := must(v1beta1.NewHeadscaleConfig(map[string]any{"server_url": "https://" + name + ".example.com"}))
	return &v1beta1.Headscale{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1beta1.HeadscaleSpec{Version: headscaleVersion, Config: config, APIKey: v1beta1.APIKeySpec{SecretName: name + "-key", Expiration: "2160h"}},
	}
}

func (b *operatorBench) patch(ctx context.Context, number int, patch string) {
	check(b.Admin.Patch(ctx, newHeadscale(operatorNamespace, number), client.RawPatch(types.MergePatchType, []byte(patch))))
}

// awaitSets returns when something first holds that a StatefulSet, known by its name, may change.
func (b *operatorBench) awaitSets(ctx context.Context, holds func(name string) bool) time.Time {
	return must(env.Await(ctx, b.sets, func(set *appsv1.StatefulSet) bool {
		b.generations[set.Name] = set.Generation
		return holds(set.Name)
	}))
}

// awaitIdle waits until the operator has asked for nothing for a while; it returns the usage so far.
func (b *operatorBench) awaitIdle(ctx context.Context) (now usage) {
	var last usage
	check(wait.PollUntilContextTimeout(ctx, 250*time.Millisecond, limit, true, func(context.Context) (bool, error) {
		if now = b.usageOf(b.Operator.Process); now.Counts != last.Counts || last.took == 0 {
			last = now
		}
		return now.took-last.took >= quiet, nil
	}))
	return now
}

// operatorRows are about the operator's costs, with the fewest Headscales first.
func operatorRows(all []*operatorBench) (rows []row) {
	var others, noOps float64
	for _, b := range all {
		if b.size == wantedSize {
			rows = b.rows()
		}
		others = max(others, b.each(b.making.Writes-b.making.Created))
		noOps += float64(b.noOps.Writes)
	}
	rows = append(rows,
		atMost("writes for a new Headscale besides one for each object", "%.1f", others, 2),
		atMost("writes for no-op updates", "%.0f", noOps, 0))
	few, many := slices.IndexFunc(all, func(b *operatorBench) bool { return b.size >= fewest }), len(all)-1
	if few >= 0 && few < many {
		rows = append(rows, growthRows(all, few, many)...)
	}
	return rows
}

// rows are about one number of Headscales.
func (b *operatorBench) rows() []row {
	with := fmt.Sprintf("with %d Headscales", b.size)
	sets := fmt.Sprintf("%d StatefulSets exist", b.size)
	return []row{
		atMost("operator's memory (PSS) "+with, "%.1f MiB", b.resting.Proportional, 50),
		noted(sets+", the least possible, after, median", "%.2f s", quantile(0.5, b.baseline).Seconds()),
		noted(fmt.Sprintf("requests for each of %d new Headscales", b.size), "%.1f", b.each(b.making.All)),
		noted("change until changed StatefulSet "+with+", median", "%.0f ms", 1000*quantile(0.5, b.changing).Seconds()),
		noted("operator's processor at rest "+with, "%.2f %%", b.resting.percent()),
		noted(sets+" after, median", "%.2f s", quantile(0.5, b.remade).Seconds()),
		atMost(sets+", time as against the least possible, median", "%.2f", quantile(0.5, b.ratios), 2),
	}
}

// each is a number for each Headscale.
func (b *operatorBench) each(total int) float64 { return float64(total) / float64(b.size) }

// growthRows compare what each of many Headscales costs with what each of a few does. The memory
// is that for each that there are more than in the measurement before; in the first, than none.
func growthRows(all []*operatorBench, few, many int) (rows []row) {
	compare := func(what string, cost func(i int, b *operatorBench) float64) {
		what = fmt.Sprintf("%s, for each of %d as against each of %d", what, all[many].size, all[few].size)
		rows = append(rows, atMost(what, "%.2f", cost(many, all[many])/cost(few, all[few]), 1.2))
	}
	compare("requests", func(_ int, b *operatorBench) float64 { return b.each(b.making.All) })
	compare("writes", func(_ int, b *operatorBench) float64 { return b.each(b.making.Writes) })
	compare("time until its StatefulSet exists", func(_ int, b *operatorBench) float64 { return b.each(int(b.made)) })
	compare("processor time until it is at rest", func(_ int, b *operatorBench) float64 { return b.each(int(b.making.Processor)) })
	compare("memory for each more", func(i int, b *operatorBench) float64 {
		memory, size := b.idle.Proportional, 0
		if i > 0 {
			memory, size = all[i-1].resting.Proportional, all[i-1].size
		}
		return (b.resting.Proportional - memory) / float64(b.size-size)
	})
	compare("change until changed StatefulSet, median", func(_ int, b *operatorBench) float64 { return float64(quantile(0.5, b.changing)) })
	return rows
}
