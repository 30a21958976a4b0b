{{- /* The name of everything: the release's, with the chart's in it. */ -}}
{{- define "tensor-wasm.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tensor-wasm.selector" -}}
app.kubernetes.io/name: tensor-wasm
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tensor-wasm.labels" -}}
{{ include "tensor-wasm.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}
