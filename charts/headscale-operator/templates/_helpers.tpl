{{- define "headscale-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The prefix of all names: the release's name, and the chart's unless that contains it. A Service's
     name has at most 63 characters, of which "-controller-manager-metrics" takes 27. */}}
{{- define "headscale-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 36 | trimSuffix "-" -}}
{{- else if contains (include "headscale-operator.name" .) .Release.Name -}}
{{- .Release.Name | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "headscale-operator.name" .) | trunc 36 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "headscale-operator.deployment" -}}
{{ include "headscale-operator.fullname" . }}-controller-manager
{{- end -}}

{{- define "headscale-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "headscale-operator.deployment" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name must be set where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "headscale-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "headscale-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller-manager
{{- end -}}

{{/* managed-by is Helm and not headscale-operator: the latter marks what the operator creates. */}}
{{- define "headscale-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "headscale-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: headscale-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{/* The reference of an image. The argument is a list: the image's values, its name, the root. A
     released chart has references with digests as annotations; they are used where the values change
     none of repository, tag and digest. */}}
{{- define "headscale-operator.image" -}}
{{- $image := first . -}}
{{- $root := last . -}}
{{- $released := index $root.Chart.Annotations (printf "headscale.infrado.cloud/%s-image" (index . 1)) -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else if and (not $image.tag) (hasPrefix (printf "%s:" $image.repository) $released) -}}
{{ $released }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "headscale-operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
  - ALL
{{- end -}}

{{- define "headscale-operator.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* How monitors say who they are. */}}
{{- define "headscale-operator.metricsToken" -}}
authorization:
  credentials:
    name: {{ required "metrics.token.secretName must be set for metrics.podMonitor: a PodMonitor cannot send Prometheus' own token, as metrics.serviceMonitor does" .Values.metrics.token.secretName }}
    key: {{ .Values.metrics.token.key }}
{{- end -}}

{{/* What monitors know of the operator's certificate. */}}
{{- define "headscale-operator.metricsTLS" -}}
tlsConfig:
  {{- if .Values.metrics.certificate.secretName }}
  ca:
    secret:
      name: {{ .Values.metrics.certificate.secretName }}
      key: ca.crt
  serverName: {{ include "headscale-operator.deployment" . }}-metrics.{{ .Release.Namespace }}.svc
  {{- else }}
  # The certificate is self-signed.
  insecureSkipVerify: true
  {{- end }}
{{- end -}}
