package headscale

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	rbacv1ac "k8s.io/client-go/applyconfigurations/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// edit is a change that somebody may make by hand to a field of an object.
type edit struct {
	name string
	// variants are ways to make it, of which the API server may refuse some.
	variants []func(document map[string]any)
}

// editsOf are the edits of all that the operator applies to an object: each field is given
// another value or removed, each entry of a list is removed or replaced by one with another
// key, and each member of a union is replaced by another member.
func editsOf(applied map[string]any, kind reflect.Type) []edit {
	var edits []edit
	for _, section := range []string{"automountServiceAccountToken", "data", "roleRef", "rules", "spec", "subjects"} {
		if content, ok := applied[section]; ok {
			edits = append(edits, removal(pathOf(section)))
			edits = append(edits, editsAt(content, pathOf(section), kind)...)
		}
	}
	metadata, _ := applied["metadata"].(map[string]any)
	return append(edits, editsAt(metadata["labels"], pathOf("metadata", "labels"), kind)...)
}

// step is the name of a field or, without a name, the index of an entry.
type step struct {
	name  string
	index int
}

// path leads to a field.
type path []step

// pathOf is the path of some fields, each within the one before.
func pathOf(names ...string) path {
	var p path
	for _, name := range names {
		p = append(p, step{name: name})
	}
	return p
}

// to is the path of a field of what the path leads to, and entry that of an entry.
func (p path) to(name string) path { return append(slices.Clone(p), step{name: name}) }

func (p path) entry(index int) path { return append(slices.Clone(p), step{index: index}) }

// String is the path as people write it.
func (p path) String() string {
	var parts []string
	for _, s := range p {
		if s.name == "" {
			s.name = strconv.Itoa(s.index)
		}
		parts = append(parts, s.name)
	}
	return strings.Join(parts, ".")
}

// in is what a path leads to in a document.
func (p path) in(document any) any {
	for _, s := range p {
		switch parent := document.(type) {
		case map[string]any:
			document = parent[s.name]
		case []any:
			document = parent[s.index]
		}
	}
	return document
}

// set sets what a path leads to; nil removes it.
func (p path) set(document map[string]any, content any) {
	parent, last := p[:len(p)-1], p[len(p)-1]
	switch container := parent.in(document).(type) {
	case map[string]any:
		container[last.name] = content
		if content == nil {
			delete(container, last.name)
		}
	case []any:
		if content != nil {
			container[last.index] = content
			return
		}
		parent.set(document, slices.Delete(slices.Clone(container), last.index, last.index+1))
	}
}

// removal removes a field or an entry.
func removal(p path) edit {
	return edit{p.String() + " removed", []func(map[string]any){func(document map[string]any) { p.set(document, nil) }}}
}

// replacement gives a field another value.
func replacement(p path, values []any) edit {
	e := edit{name: p.String() + " replaced"}
	for _, content := range values {
		e.variants = append(e.variants, func(document map[string]any) { p.set(document, content) })
	}
	return e
}

// editsAt are the edits of what an object has at a path.
func editsAt(content any, p path, kind reflect.Type) []edit {
	var edits []edit
	switch fields := content.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			edits = append(edits, removal(p.to(name)))
			edits = append(edits, unionEdits(p, name, kind)...)
			edits = append(edits, editsAt(fields[name], p.to(name), kind)...)
		}
	case []any:
		for i, item := range fields {
			edits = append(edits, removal(p.entry(i)))
			edits = append(edits, swaps(item, p.entry(i))...)
			edits = append(edits, editsAt(item, p.entry(i), kind)...)
		}
	default:
		edits = append(edits, replacement(p, others(content)))
	}
	return edits
}

// others are values of the type of another one.
func others(content any) []any {
	switch value := content.(type) {
	case bool:
		return []any{!value}
	case int64:
		return []any{value + 1, value + 1000, int64(1)}
	default:
		var values []any
		for _, text := range []string{fmt.Sprint(value, "x"), fmt.Sprint(value, "-x"), "/x", "7", "UDP", "HTTPS", "Always", "File", "Unconfined", "OnRootMismatch", "ReadOnlyMany", "PreferNoSchedule", "Exists", "kubernetes.io/arch"} {
			if text != value {
				values = append(values, text)
			}
		}
		return values
	}
}

// swaps put another entry in the place of an entry of a list: it has one field of it, the
// entry itself gets another value there, and one other field differs.
func swaps(item any, p path) []edit {
	var edits []edit
	fields, _ := item.(map[string]any)
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(fields)), func(name string) bool { return !scalar(fields[name]) })
	for _, kept := range names {
		e := edit{name: fmt.Sprintf("%v replaced by another with its %s", p, kept)}
		for _, changed := range names {
			for _, value := range others(fields[kept]) {
				for _, other := range others(fields[changed]) {
					if changed == kept {
						continue
					}
					e.variants = append(e.variants, func(document map[string]any) {
						twin := runtime.DeepCopyJSON(fields)
						twin[changed] = other
						p.to(kept).set(document, value)
						list := p[:len(p)-1]
						entries, _ := list.in(document).([]any)
						list.set(document, append(slices.Clone(entries), twin))
					})
				}
			}
		}
		edits = append(edits, e)
	}
	return edits
}

// scalar reports whether a value is neither a list nor a struct.
func scalar(content any) bool {
	kind := reflect.ValueOf(content).Kind()
	return kind != reflect.Map && kind != reflect.Slice
}

// unionEdits replace a member of a union, which is a struct with pointers alone, by another.
func unionEdits(p path, name string, kind reflect.Type) []edit {
	if name == "valueFrom" {
		return []edit{{p.to(name).String() + " replaced by value", []func(map[string]any){func(document map[string]any) {
			p.to(name).set(document, nil)
			p.to("value").set(document, "x")
		}}}}
	}
	union := unionOf(typeAt(kind, p), name)
	if union == nil {
		return nil
	}
	e := edit{name: p.to(name).String() + " replaced by another member"}
	for i := range union.NumField() {
		member := jsonName(union.Field(i))
		if member == name || union.Field(i).Type.Elem().Kind() != reflect.Struct {
			continue
		}
		for _, text := range []string{"x", "/x"} {
			e.variants = append(e.variants, func(document map[string]any) {
				p.to(name).set(document, nil)
				p.to(member).set(document, filled(union.Field(i).Type.Elem(), text))
			})
		}
	}
	return []edit{e}
}

// typeAt is the type of the struct or list at a path of an object; nil below maps.
func typeAt(kind reflect.Type, p path) reflect.Type {
	for _, s := range p {
		for kind != nil && kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		switch {
		case kind == nil || kind.Kind() == reflect.Map:
			return nil
		case kind.Kind() == reflect.Slice:
			kind = kind.Elem()
		default:
			kind = fieldType(kind, s.name)
		}
	}
	for kind != nil && kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	return kind
}

// fieldType is the type of a field by its name in JSON; nil where there is none.
func fieldType(kind reflect.Type, name string) reflect.Type {
	if kind.Kind() != reflect.Struct {
		return nil
	}
	for i := range kind.NumField() {
		field := kind.Field(i)
		if field.Anonymous {
			if found := fieldType(field.Type, name); found != nil {
				return found
			}
		} else if jsonName(field) == name {
			return field.Type
		}
	}
	return nil
}

// unionOf is the struct of pointers that has a field, and that is or is embedded in kind. The
// API calls those of which one may be set sources, handlers or projections.
func unionOf(kind reflect.Type, name string) reflect.Type {
	if kind == nil || kind.Kind() != reflect.Struct {
		return nil
	}
	pointers, has := kind.NumField() > 1, false
	for i := range kind.NumField() {
		field := kind.Field(i)
		if field.Anonymous {
			if union := unionOf(field.Type, name); union != nil {
				return union
			}
		}
		pointers = pointers && field.Type.Kind() == reflect.Pointer
		has = has || jsonName(field) == name
	}
	named := strings.HasSuffix(kind.Name(), "Source") || strings.HasSuffix(kind.Name(), "Handler") || strings.HasSuffix(kind.Name(), "Projection")
	if !pointers || !has || !named || fieldType(kind, name).Elem().Kind() != reflect.Struct {
		return nil
	}
	return kind
}

// jsonName is the name of a field in JSON.
func jsonName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	return name
}

// filled is a struct as JSON whose required texts are text and whose numbers are 1.
func filled(kind reflect.Type, text string) map[string]any {
	fields := map[string]any{}
	for i := range kind.NumField() {
		field := kind.Field(i)
		switch field.Type.Kind() {
		case reflect.String:
			fields[jsonName(field)] = text
		case reflect.Int32, reflect.Int64:
			fields[jsonName(field)] = int64(1)
		case reflect.Struct:
			if jsonName(field) == "port" {
				fields["port"] = int64(1)
			} else if field.Anonymous {
				maps.Copy(fields, filled(field.Type, text))
			}
		}
	}
	return fields
}

// appliedTo are the fields of an object that the operator applied, as JSON.
func appliedTo(object client.Object) (map[string]any, error) {
	var owned any
	var err error
	switch live := object.(type) {
	case *corev1.ServiceAccount:
		owned, err = corev1ac.ExtractServiceAccount(live, FieldManager)
	case *rbacv1.Role:
		owned, err = rbacv1ac.ExtractRole(live, FieldManager)
	case *rbacv1.RoleBinding:
		owned, err = rbacv1ac.ExtractRoleBinding(live, FieldManager)
	case *corev1.ConfigMap:
		owned, err = corev1ac.ExtractConfigMap(live, FieldManager)
	case *corev1.Service:
		owned, err = corev1ac.ExtractService(live, FieldManager)
	case *appsv1.StatefulSet:
		owned, err = appsv1ac.ExtractStatefulSet(live, FieldManager)
	default:
		return nil, fmt.Errorf("a %T is not applied", object)
	}
	if err != nil {
		return nil, err
	}
	return runtime.DefaultUnstructuredConverter.ToUnstructured(owned)
}

// contentOf is what counts of an object: all but what the API server counts.
func contentOf(document map[string]any) map[string]any {
	content := runtime.DeepCopyJSON(document)
	delete(content, "status")
	for _, field := range []string{"generation", "managedFields", "resourceVersion", "creationTimestamp"} {
		unstructured.RemoveNestedField(content, "metadata", field)
	}
	return content
}

// compared are two documents, the second of which should have all of the first.
type compared struct {
	// lost is what the second one has not, or has otherwise, and left what it has besides, as
	// paths without indexes.
	lost, left []string
}

// compare compares what two documents have at a path. Entries keep their order.
func (c *compared) compare(before, after any, p path) {
	switch was := before.(type) {
	case map[string]any:
		is, ok := after.(map[string]any)
		if !ok {
			c.lost = append(c.lost, p.String())
		}
		for _, name := range slices.Sorted(maps.Keys(was)) {
			c.compare(was[name], is[name], p.to(name))
		}
		for _, name := range slices.Sorted(maps.Keys(is)) {
			if _, known := was[name]; !known {
				c.left = append(c.left, p.to(name).String())
			}
		}
	case []any:
		is, _ := after.([]any)
		for _, item := range was {
			i := slices.IndexFunc(is, func(other any) bool {
				inner := compared{}
				inner.compare(item, other, p)
				return len(inner.lost) == 0
			})
			if i < 0 {
				c.lost = append(c.lost, p.String())
				return
			}
			if i > 0 {
				c.left = append(c.left, p.String())
			}
			c.compare(item, is[i], p)
			is = is[i+1:]
		}
		if len(is) > 0 {
			c.left = append(c.left, p.String())
		}
	default:
		if before != after {
			c.lost = append(c.lost, p.String())
		}
	}
}

var _ = Describe("An object that somebody edits by hand", func() {
	// everything has an entry in each list that the operator applies.
	everything := shortest + `
    grpc_listen_addr: 0.0.0.0:50443
    derp: {server: {enabled: true, stun_listen_addr: "0.0.0.0:3478"}}
  image_pull_secrets: [{name: one}]
  pod:
    resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 512Mi}}
    tolerations: [{key: dedicated, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]
    topology_spread_constraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
    node_selector: {disk: ssd}
    annotations: {mesh.example/inject: "false"}
    env: [{name: HEADSCALE_LOG_LEVEL, value: debug}]
    volumes: [{name: ca, configMap: {name: ca, items: [{key: ca.crt, path: ca.crt}]}}]
    volume_mounts: [{name: ca, mountPath: /etc/ssl/certs, readOnly: true}]
`

	DescribeTable("gets back every field of the operator, and keeps no more than the documentation says",
		func(ctx context.Context, object client.Object, name string, left ...string) {
			o := startOperator(ctx)
			Expect(admin.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "ca"}, Data: map[string]string{"ca.crt": "roots"}})).To(Succeed())
			Expect(create(ctx, o.namespace, everything)).To(Succeed())
			Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
			read := func() map[string]any {
				GinkgoHelper()
				Expect(admin.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: name}, object)).To(Succeed())
				document, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
				Expect(err).NotTo(HaveOccurred())
				return document
			}
			original := contentOf(read())
			applied, err := appliedTo(object)
			Expect(err).NotTo(HaveOccurred())
			kind, err := admin.GroupVersionKindFor(object)
			Expect(err).NotTo(HaveOccurred())
			put := func(document map[string]any) error {
				edited := &unstructured.Unstructured{Object: document}
				edited.SetGroupVersionKind(kind)
				return admin.Update(ctx, edited, client.FieldOwner("kubectl-edit"))
			}
			undo := edit{variants: []func(map[string]any){func(document map[string]any) {
				for section := range original {
					if section != "metadata" {
						document[section] = runtime.DeepCopyJSONValue(original[section])
					}
				}
			}}}
			var made, refused, lasting []string
			kept := map[string]bool{}
			for _, e := range editsOf(applied, reflect.TypeOf(object)) {
				if len(lasting) == 5 {
					break // Each takes as long as its deadline.
				}
				if !attempt(e, read, put) {
					refused = append(refused, e.name)
					continue
				}
				made = append(made, e.name)
				var found compared
				back := NewGomega(func(message string, _ ...int) { lasting = append(lasting, e.name+": "+message) })
				back.Eventually(func() []string {
					found = compared{}
					found.compare(original, contentOf(read()), nil)
					return found.lost
				}).WithContext(ctx).Should(BeEmpty())
				for _, field := range found.left {
					kept[field] = true
				}
				if len(found.left) > 0 {
					Expect(attempt(undo, read, put)).To(BeTrue())
				}
			}
			AddReportEntry("edits", fmt.Sprintf("%d made, %d refused by the API server:\n%s", len(made), len(refused), strings.Join(refused, "\n")))
			Expect(lasting).To(BeEmpty(), strings.Join(lasting, "\n"))
			Expect(made).NotTo(BeEmpty())
			if validatesTemplates(ctx) {
				Expect(slices.Sorted(maps.Keys(kept))).To(ConsistOf(left))
			} else { // Two kinds of a volume, for one, of which the operator sets one, can be stored then.
				Expect(slices.Sorted(maps.Keys(kept))).To(ContainElements(left))
			}
			Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, ""))
		},
		Entry("a ServiceAccount", &corev1.ServiceAccount{}, "headscale"),
		Entry("a Role", &rbacv1.Role{}, "headscale"),
		Entry("a RoleBinding", &rbacv1.RoleBinding{}, "headscale"),
		Entry("a ConfigMap", &corev1.ConfigMap{}, "headscale"),
		Entry("the Service", &corev1.Service{}, "headscale"),
		Entry("the Service of the metrics", &corev1.Service{}, "headscale-metrics"),
		Entry("a StatefulSet", &appsv1.StatefulSet{}, "headscale",
			"spec.template.spec.containers.env", "spec.template.spec.containers.volumeMounts",
			"spec.template.spec.imagePullSecrets", "spec.template.spec.topologySpreadConstraints"),
	)
})

// attempt makes an edit in one of its variants, and reports whether the API server accepted it.
func attempt(e edit, read func() map[string]any, put func(map[string]any) error) bool {
	GinkgoHelper()
	for _, change := range e.variants {
		for {
			document := read()
			change(document)
			err := put(document)
			if apierrors.IsConflict(err) {
				continue
			}
			if err == nil {
				return true
			}
			break
		}
	}
	return false
}
