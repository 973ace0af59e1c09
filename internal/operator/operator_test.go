package operator

import (
	"reflect"
	"testing"

	. "github.com/onsi/gomega"
)

// Two controllers that each limit the cache for the same type would overwrite each other.
func TestCachedObjectsAreDisjoint(t *testing.T) {
	g := NewWithT(t)
	seen := map[reflect.Type]bool{}
	for _, of := range cachedObjects {
		for object := range of() {
			kind := reflect.TypeOf(object)
			g.Expect(seen).NotTo(HaveKey(kind))
			seen[kind] = true
		}
	}
	g.Expect(seen).NotTo(BeEmpty())
}

func TestCacheOptions(t *testing.T) {
	g := NewWithT(t)
	everywhere := cacheOptions(nil)
	g.Expect(everywhere.DefaultNamespaces).To(BeNil())
	g.Expect(everywhere.ByObject).To(HaveLen(len(cachedObjects[0]())))
	some := cacheOptions([]string{"a", "b"})
	g.Expect(some.DefaultNamespaces).To(And(HaveLen(2), HaveKey("a"), HaveKey("b")))
}

// The scheme knows every type that the cache is limited for.
func TestScheme(t *testing.T) {
	g := NewWithT(t)
	scheme, err := newScheme()
	g.Expect(err).NotTo(HaveOccurred())
	for _, of := range cachedObjects {
		for object := range of() {
			_, _, err := scheme.ObjectKinds(object)
			g.Expect(err).NotTo(HaveOccurred())
		}
	}
}
