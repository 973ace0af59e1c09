package podrunner

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// expand replaces $(NAME) by the value of a known variable, as Kubernetes does:
// an unknown name stays as it is, and $$ stands for one $.
func expand(text string, variables map[string]string) string {
	var result strings.Builder
	for i := 0; i < len(text); i++ {
		rest := text[i:]
		if strings.HasPrefix(rest, "$$") {
			result.WriteByte('$')
			i++
			continue
		}
		if strings.HasPrefix(rest, "$(") {
			if end := strings.IndexByte(rest, ')'); end > 0 {
				if value, known := variables[rest[2:end]]; known {
					result.WriteString(value)
				} else {
					result.WriteString(rest[:end+1])
				}
				i += end
				continue
			}
		}
		result.WriteByte(text[i])
	}
	return result.String()
}

// expandAll expands every text of a list.
func expandAll(texts []string, variables map[string]string) []string {
	expanded := make([]string, 0, len(texts))
	for _, text := range texts {
		expanded = append(expanded, expand(text, variables))
	}
	return expanded
}

// variables are the environment that the template gives a container.
func (p *pod) variables(ctx context.Context, container *corev1.Container) (map[string]string, error) {
	result := map[string]string{}
	for _, source := range container.EnvFrom {
		values, err := p.envFrom(ctx, source)
		if err != nil {
			return nil, fmt.Errorf("container %s: envFrom: %w", container.Name, err)
		}
		for name, value := range values {
			result[source.Prefix+name] = value
		}
	}
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

// envFrom reads all entries of a Secret or a ConfigMap.
func (p *pod) envFrom(ctx context.Context, source corev1.EnvFromSource) (map[string]string, error) {
	var entries map[string][]byte
	var err error
	switch {
	case source.SecretRef != nil:
		entries, err = p.secret(ctx, source.SecretRef.Name, ptr.Deref(source.SecretRef.Optional, false))
	case source.ConfigMapRef != nil:
		entries, err = p.configMap(ctx, source.ConfigMapRef.Name, ptr.Deref(source.ConfigMapRef.Optional, false))
	}
	values := make(map[string]string, len(entries))
	for name, value := range entries {
		values[name] = string(value)
	}
	return values, err
}

// valueFrom reads the value of one variable; found is false when it comes from
// something optional that is not there.
func (p *pod) valueFrom(ctx context.Context, source *corev1.EnvVarSource) (value string, found bool, err error) {
	switch {
	case source.FieldRef != nil:
		value, err = p.field(source.FieldRef.FieldPath)
		return value, true, err
	case source.SecretKeyRef != nil:
		ref := source.SecretKeyRef
		entries, err := p.secret(ctx, ref.Name, ptr.Deref(ref.Optional, false))
		return pick(entries, ref.Key, ptr.Deref(ref.Optional, false), err)
	case source.ConfigMapKeyRef != nil:
		ref := source.ConfigMapKeyRef
		entries, err := p.configMap(ctx, ref.Name, ptr.Deref(ref.Optional, false))
		return pick(entries, ref.Key, ptr.Deref(ref.Optional, false), err)
	default:
		return "", false, fmt.Errorf("this kind of reference is not emulated")
	}
}

// pick returns one entry.
func pick(entries map[string][]byte, key string, optional bool, err error) (value string, found bool, _ error) {
	if err != nil {
		return "", false, err
	}
	content, found := entries[key]
	if !found && !optional {
		return "", false, fmt.Errorf("there is no entry %q, only %q", key, slices.Sorted(maps.Keys(entries)))
	}
	return string(content), found, nil
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
	for prefix, values := range map[string]map[string]string{
		"metadata.labels['": p.template.Labels, "metadata.annotations['": p.template.Annotations,
	} {
		if name, found := strings.CutPrefix(path, prefix); found {
			return values[strings.TrimSuffix(name, "']")], nil
		}
	}
	return "", fmt.Errorf("the field %q is not emulated", path)
}
