package main

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

const definition = `---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: examples
spec:
  group: example.com
  names:
    kind: Example
    plural: examples
  scope: Namespaced
  versions:
  - name: v1
    schema:
      openAPIV3Schema:
        properties:
          spec:
            properties:
              name:
                type: string
              pod:
                properties:
                  annotations:
                    additionalProperties:
                      type: string
                    maxProperties: 7
                    type: object
                type: object
            type: object
        type: object
    served: true
    storage: true
`

func TestLimits(t *testing.T) {
	g := NewWithT(t)
	directory := t.TempDir()
	file, other := filepath.Join(directory, "one.yaml"), filepath.Join(directory, "other.yaml")
	g.Expect(os.WriteFile(file, []byte(definition), 0o600)).To(Succeed())
	g.Expect(os.WriteFile(other, []byte(definition), 0o600)).To(Succeed())
	var last []byte
	for range 2 {
		g.Expect(run(directory)).To(Succeed())
		text, err := os.ReadFile(file)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(os.ReadFile(other)).To(Equal(text), "every definition is changed")
		g.Expect(string(text)).To(And(
			ContainSubstring("additionalProperties:\n                      maxLength: 32768\n                      type: string\n                    maxProperties: 7\n"),
			ContainSubstring("              name:\n                type: string\n")), "a field of ours gets its limit from a marker")
		if last != nil {
			g.Expect(text).To(Equal(last), "once more changes nothing")
		}
		last = text
	}
	g.Expect(run(t.TempDir())).To(MatchError(ContainSubstring("has no *.yaml")))
}
