package podrunner

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// variables are the environment that the template gives a container.
func (p *pod) variables(ctx context.Context, container *corev1.Container) (map[string]string, error) {
	result := map[string]string{}
	for _, from := range container.EnvFrom {
		if from.SecretRef == nil {
			return nil, fmt.Errorf("container %s: envFrom other than a Secret is not emulated", container.Name)
		}
		entries, err := p.entries(ctx, &corev1.Secret{}, from.SecretRef.Name, nil, nil)
		if err != nil {
			return nil, err
		}
		for name, value := range entries {
			result[name] = string(value)
		}
	}
	for _, variable := range container.Env {
		result[variable.Name] = variable.Value
		if variable.ValueFrom == nil {
			continue
		}
		var err error
		if result[variable.Name], err = p.valueFrom(ctx, variable.ValueFrom); err != nil {
			return nil, fmt.Errorf("container %s: env %s: %w", container.Name, variable.Name, err)
		}
	}
	return result, nil
}

// valueFrom reads the value of one variable.
func (p *pod) valueFrom(ctx context.Context, source *corev1.EnvVarSource) (string, error) {
	switch {
	case source.FieldRef != nil:
		return p.field(source.FieldRef)
	case source.SecretKeyRef != nil:
		key := source.SecretKeyRef.Key
		entries, err := p.entries(ctx, &corev1.Secret{}, source.SecretKeyRef.Name, []corev1.KeyToPath{{Key: key, Path: key}}, nil)
		return string(entries[key]), err
	case source.ConfigMapKeyRef != nil:
		key := source.ConfigMapKeyRef.Key
		entries, err := p.entries(ctx, &corev1.ConfigMap{}, source.ConfigMapKeyRef.Name, []corev1.KeyToPath{{Key: key, Path: key}}, nil)
		return string(entries[key]), err
	default:
		return "", errors.New("this kind of reference is not emulated")
	}
}

// field is the value of a downward API field.
func (p *pod) field(field *corev1.ObjectFieldSelector) (string, error) {
	if field == nil || field.FieldPath != "metadata.namespace" {
		return "", fmt.Errorf("%v: fields of the pod other than metadata.namespace are not emulated", field)
	}
	return p.namespace, nil
}
