package podrunner

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// references are $(NAME), and $$, which stands for one $.
var references = regexp.MustCompile(`\$\$|\$\(([^)]*)\)`)

// expand replaces $(NAME) by the value of a known variable, as Kubernetes does.
// An unknown name stays as it is.
func expand(text string, variables map[string]string) string {
	return references.ReplaceAllStringFunc(text, func(found string) string {
		if found == "$$" {
			return "$"
		}
		if value, known := variables[found[2:len(found)-1]]; known {
			return value
		}
		return found
	})
}

// variables are the environment that the template gives a container.
func (p *pod) variables(ctx context.Context, container *corev1.Container) (map[string]string, error) {
	result := map[string]string{}
	for _, variable := range container.Env {
		if variable.ValueFrom == nil {
			result[variable.Name] = expand(variable.Value, result)
			continue
		}
		value, found, err := p.valueFrom(ctx, variable.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("container %s: env %s: %w", container.Name, variable.Name, err)
		}
		if found {
			result[variable.Name] = value
		}
	}
	return result, nil
}

// valueFrom reads the value of one variable; found is false when it comes from
// something optional that is not there.
func (p *pod) valueFrom(ctx context.Context, source *corev1.EnvVarSource) (value string, found bool, err error) {
	one := func(object client.Object, name, key string, optional *bool) (string, bool, error) {
		entries, err := p.entries(ctx, object, name, []corev1.KeyToPath{{Key: key, Path: key}}, optional)
		value, found := entries[key]
		return string(value), found, err
	}
	switch {
	case source.FieldRef != nil:
		value, err = p.field(source.FieldRef.FieldPath)
		return value, true, err
	case source.SecretKeyRef != nil:
		return one(&corev1.Secret{}, source.SecretKeyRef.Name, source.SecretKeyRef.Key, source.SecretKeyRef.Optional)
	case source.ConfigMapKeyRef != nil:
		return one(&corev1.ConfigMap{}, source.ConfigMapKeyRef.Name, source.ConfigMapKeyRef.Key, source.ConfigMapKeyRef.Optional)
	default:
		return "", false, fmt.Errorf("this kind of reference is not emulated")
	}
}

// field is the value of a downward API field.
func (p *pod) field(path string) (string, error) {
	switch path {
	case "metadata.name":
		return p.name, nil
	case "metadata.namespace":
		return p.namespace, nil
	case "spec.serviceAccountName":
		return p.template.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs", "status.hostIP":
		return "127.0.0.1", nil
	}
	kind, name, _ := strings.Cut(strings.TrimSuffix(path, "']"), "['")
	switch kind {
	case "metadata.labels":
		return p.template.Labels[name], nil
	case "metadata.annotations":
		return p.template.Annotations[name], nil
	}
	return "", fmt.Errorf("the field %q is not emulated", path)
}
