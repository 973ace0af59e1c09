package policy

import (
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// Of two parts that conflict, the younger is left out, whatever their order is.
func TestSelect(t *testing.T) {
	const one, two = `{"hosts": {"a": "1", "b": "1"}}`, `{"hosts": {"a": "2"}}`
	for name, test := range map[string]struct {
		texts []string
		ages  []int
		kept  []string
		left  []Conflict
	}{
		"no conflict":        {texts: []string{`{"acls": []}`, one}, ages: []int{1, 2}, kept: []string{"a", "b"}},
		"the younger first":  {texts: []string{one, two}, ages: []int{1, 2}, kept: []string{"b"}, left: []Conflict{{"a", `"hosts"."a"`, "b"}}},
		"the older first":    {texts: []string{one, two}, ages: []int{2, 1}, kept: []string{"a"}, left: []Conflict{{"b", `"hosts"."a"`, "a"}}},
		"of the same age":    {texts: []string{one, two}, ages: []int{1, 1}, kept: []string{"a"}, left: []Conflict{{"b", `"hosts"."a"`, "a"}}},
		"with one left out":  {texts: []string{one, two, `{"hosts": {"a": "2", "c": "1"}}`}, ages: []int{3, 2, 1}, kept: []string{"a"}, left: []Conflict{{"b", `"hosts"."a"`, "a"}, {"c", `"hosts"."a"`, "a"}}},
		"only with one left": {texts: []string{one, `{"hosts": {"a": "2", "c": "2"}}`, `{"hosts": {"c": "1"}}`}, ages: []int{3, 2, 1}, kept: []string{"a", "c"}, left: []Conflict{{"b", `"hosts"."a"`, "a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			all := parts(g, test.texts...)
			for i := range all {
				all[i].Created = time.Unix(int64(-test.ages[i]), 0)
			}
			kept, left := Select(all)
			g.Expect(slices.Collect(func(yield func(string) bool) {
				for _, part := range kept {
					yield(part.Source)
				}
			})).To(Equal(test.kept))
			g.Expect(left).To(Equal(test.left))
		})
	}
}

func TestDifference(t *testing.T) {
	g := NewWithT(t)
	both := parts(g, `// by hand
{"acls": [{"src": ["a"], "action": "accept"}, {"src": ["b"]}], "groups": {"group:b": ["x"], "group:a": []}}`,
		`{"acls": [{"action": "accept", "src": ["a"]}, {"src": ["c"]}], "groups": {"group:a": [], "group:b": ["x", "y"]}, "randomizeClientPort": true}`)
	g.Expect(Difference(both[0].Document, both[0].Document, "a", "b")).To(BeEmpty())
	g.Expect(Difference(both[0].Document, both[1].Document, "in force", "wanted")).To(Equal(`--- in force
+++ wanted
@@ -1,12 +1,14 @@
 {
   "acls": [
     {"action": "accept", "src": ["a"]},
-    {"src": ["b"]},
+    {"src": ["c"]},
   ],
   "groups": {
     "group:a": [],
     "group:b": [
       "x",
+      "y",
     ],
   },
+  "randomizeClientPort": true,
 }
`))
	g.Expect(Difference(nil, parts(g, `{"acls": [1]}`)[0].Document, "in force", "wanted")).To(Equal(`--- in force
+++ wanted
@@ -0,0 +1,5 @@
+{
+  "acls": [
+    1,
+  ],
+}
`))
}
