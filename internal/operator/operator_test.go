package operator

import (
	"os/exec"
	"reflect"
	"strings"
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
	all := 0
	for _, of := range cachedObjects {
		all += len(of())
	}
	g.Expect(everywhere.ByObject).To(HaveLen(all))
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

// With one of these the linker must keep every method of every type.
func TestTheOperatorDoesWithoutTemplates(t *testing.T) {
	g := NewWithT(t)
	output, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags=grpcnotrace", "../../cmd").Output()
	g.Expect(err).NotTo(HaveOccurred())
	packages := strings.Fields(string(output))
	g.Expect(packages).To(ContainElement("infrado.cloud/headscale-operator/internal/operator"))
	for _, large := range []string{"text/template", "html/template", "golang.org/x/net/trace"} {
		g.Expect(packages).NotTo(ContainElement(large))
	}
}
