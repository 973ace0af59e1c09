package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// kinds are the ways in which kubectl writes the kind before a name.
var kinds = []string{"headscale", "headscales", "hs", "headscale." + v1beta1.GroupName, "headscales." + v1beta1.GroupName}

// headscaleName is the name in an argument, which may be written as kubectl get -o name
// prints it.
func headscaleName(argument string) (string, error) {
	return nameOf(argument, v1beta1.Kind, kinds)
}

// exampleNames are names of objects, by their kinds.
var exampleNames = map[string]string{v1beta1.Kind: "headscale", v1beta1.KindUser: "alice", v1beta1.KindPreAuthKey: "web"}

// nameOf is the name in an argument, which may have a prefix with its kind, such as kind/name.
func nameOf(argument, kind string, kinds []string) (string, error) {
	before, name, found := strings.Cut(argument, "/")
	if !found {
		before, name = kinds[0], argument
	}
	if name == "" || strings.Contains(name, "/") || !slices.Contains(kinds, before) {
		return "", usagef("%q is not the NAME of a %s, such as %s or %s/%[3]s", argument, kind, exampleNames[kind], kinds[0])
	}
	return name, nil
}

// choose connects to the cluster, and reads the Headscale that the arguments name, or the only one
// in the namespace.
func (a *app) choose(ctx context.Context, args []string) (*cluster, *v1beta1.Headscale, error) {
	c, err := a.cluster()
	if err != nil {
		return nil, nil, err
	}
	headscale, err := c.chosen(ctx, args)
	return c, headscale, err
}

// chosen reads the Headscale that the arguments name, or the only one in the namespace.
func (c *cluster) chosen(ctx context.Context, args []string) (*v1beta1.Headscale, error) {
	if len(args) > 0 {
		return c.named(ctx, args[0])
	}
	found, err := c.listHeadscales(ctx, c.namespace)
	if err != nil {
		return nil, err
	}
	return theOnly(found, c.namespace)
}

// named reads a Headscale by its name.
func (c *cluster) named(ctx context.Context, argument string) (*v1beta1.Headscale, error) {
	name, err := headscaleName(argument)
	if err != nil {
		return nil, err
	}
	headscale, err := c.headscales(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && !kindMissing(err) {
		return nil, fmt.Errorf("there is no Headscale %q in namespace %s; kubectl headscale status -A shows all that there are", name, c.namespace)
	}
	return headscale, err
}

// theOnly is the only Headscale of a namespace.
func theOnly(found []v1beta1.Headscale, namespace string) (*v1beta1.Headscale, error) {
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("there is no Headscale in namespace %s; -n names another namespace", namespace)
	case 1:
		return &found[0], nil
	}
	names := make([]string, len(found))
	for i := range found {
		names[i] = found[i].Name
	}
	slices.Sort(names)
	return nil, usagef("namespace %s has %d Headscales, so say which one: %s", namespace, len(names), strings.Join(names, ", "))
}
