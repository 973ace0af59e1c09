package docs_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/pages"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// between is what stands between the documents of a manifest.
var between = regexp.MustCompile(`(?m)^---\n`)

// keep keeps a manifest as the file that its first line names, if it does.
func (r *reader) keep(b pages.Block) {
	GinkgoHelper()
	if name := b.File(); name != "" {
		Expect(os.WriteFile(filepath.Join(r.dir, name), []byte(b.Text), 0o600)).To(Succeed())
	}
}

// check has the API server check a manifest, and the operator's own code what it makes
// of a Headscale.
func (r *reader) check(ctx context.Context, b pages.Block, i instruction) {
	GinkgoHelper()
	for _, document := range between.Split(b.Text, -1) {
		object := map[string]any{}
		Expect(yaml.UnmarshalStrict([]byte(document), &object)).To(Succeed(), describeBlock(b))
		if i.manner == partOf || object["apiVersion"] == nil {
			object = completed(object, i.words)
		}
		checkManifest(ctx, b, object)
	}
}

// completed is a Headscale with a part of it at a place, which is the top for "".
func completed(part map[string]any, place string) map[string]any {
	if place != "" {
		path := strings.Split(place, ".")
		for i := len(path) - 1; i >= 0; i-- {
			part = map[string]any{path[i]: part}
		}
	}
	return merged(map[string]any{
		"apiVersion": v1beta1.GroupVersion.String(), "kind": "Headscale",
		"metadata": map[string]any{"name": "part"},
		"spec": map[string]any{
			"version": serverbuild.DefaultHeadscale,
			"config":  map[string]any{"server_url": "https://headscale.example.com"},
		},
	}, part)
}

// merged lays one document over another.
func merged(base, over map[string]any) map[string]any {
	result := maps.Clone(base)
	for key, value := range over {
		section, isSection := value.(map[string]any)
		below, wasSection := result[key].(map[string]any)
		if isSection && wasSection {
			value = merged(below, section)
		}
		result[key] = value
	}
	return result
}

// checkManifest checks one object.
func checkManifest(ctx context.Context, b pages.Block, object map[string]any) {
	GinkgoHelper()
	text, err := yaml.Marshal(object)
	Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(GinkgoT().TempDir(), "manifest.yaml")
	Expect(os.WriteFile(file, text, 0o600)).To(Succeed())
	_, err = plane.Kubectl(ctx, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", file)
	Expect(err).NotTo(HaveOccurred(), describeBlock(b))
	if object["kind"] != "Headscale" {
		return
	}
	headscale := &v1beta1.Headscale{}
	Expect(yaml.UnmarshalStrict(text, headscale)).To(Succeed(), describeBlock(b))
	draft, err := resources.NewDraft(headscale)
	Expect(err).NotTo(HaveOccurred(), describeBlock(b))
	Expect(draft.CheckConfigKeys()).To(Succeed(), describeBlock(b))
	_, err = draft.Build(resources.Options{ManagerImage: env.ManagerImage})
	Expect(err).NotTo(HaveOccurred(), describeBlock(b))
}
