#include "generators/triton_templates.h"

#include <array>

namespace drydock::generators {
namespace {

constexpr std::string_view kHelpers = R"T({{- define "triton.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "triton.selector" -}}
app.kubernetes.io/instance: {{ include "triton.name" . }}
app.kubernetes.io/component: server
{{- end }}

{{- define "triton.labels" -}}
{{ include "triton.selector" . }}
app.kubernetes.io/name: triton
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "triton.gpus" -}}
{{ mul .Values.model.tensorrtLlm.parallelism.tensor .Values.model.tensorrtLlm.parallelism.pipeline }}
{{- end }}

{{- define "triton.claim" -}}
{{ .Values.storage.existingClaim | default (printf "%s-models" (include "triton.name" .)) }}
{{- end }}

{{- /* Where the weights lie: a folder of the volume, or as given when the name is a path. */}}
{{- define "triton.weights" -}}
{{- if hasPrefix "/" .Values.model.name -}}
{{ .Values.model.name }}
{{- else -}}
/var/run/models/{{ .Values.model.folder }}
{{- end }}
{{- end }}
)T";

constexpr std::string_view kConfigMap = R"T({{- /* LLM() of TensorRT-LLM takes every key but triton_config. */}}
{{- $options := deepCopy .Values.model.tensorrtLlm.options }}
{{- $_ := set $options "model" (include "triton.weights" .) }}
{{- $_ := set $options "tensor_parallel_size" (.Values.model.tensorrtLlm.parallelism.tensor | int) }}
{{- $_ := set $options "pipeline_parallel_size" (.Values.model.tensorrtLlm.parallelism.pipeline | int) }}
{{- $_ := set $options "triton_config" (dict "max_batch_size" 0 "decoupled" .Values.triton.decoupled) }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "triton.name" . }}
  labels:
    {{- include "triton.labels" . | nindent 4 }}
data:
  model.yaml: {{ $options | toYaml | toJson }}
  prepare.sh: {{ .Files.Get "files/prepare.sh" | toJson }}
)T";

constexpr std::string_view kPrepare = R"T(#!/bin/sh
# Puts the weights on the volume, once for all pods, and the model repository beside the server.
set -eu
if [ "${WEIGHTS#/var/run/models/}" != "$WEIGHTS" ]; then
  exec 9>/var/run/models/.lock
  flock 9
  if [ ! -e "$WEIGHTS/.complete" ]; then
    python3 -c 'import os; from huggingface_hub import snapshot_download; snapshot_download(os.environ["MODEL"], local_dir=os.environ["WEIGHTS"])'
    touch "$WEIGHTS/.complete"
  fi
  flock -u 9
fi
source=/app/all_models/llmapi
if [ ! -d "$source" ]; then
  version=$(python3 -c 'import tensorrt_llm; print(tensorrt_llm.__version__)' | tail -n 1)
  git clone --depth 1 --branch "v$version" --filter=blob:none --sparse "$REPOSITORY" /tmp/tensorrt_llm
  git -C /tmp/tensorrt_llm sparse-checkout set triton_backend/all_models/llmapi
  source=/tmp/tensorrt_llm/triton_backend/all_models/llmapi
fi
cp -r "$source/." /var/run/repository/
cp /etc/prepare/model.yaml /var/run/repository/tensorrt_llm/1/model.yaml
)T";

constexpr std::string_view kDeployment = R"T({{- $gpus := include "triton.gpus" . }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "triton.name" . }}
  labels:
    {{- include "triton.labels" . | nindent 4 }}
spec:
  {{- if not .Values.autoscaling.enable }}
  replicas: {{ .Values.autoscaling.replicas.minimum }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "triton.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "triton.labels" . | nindent 8 }}
      annotations:
        checksum/config: {{ include (print $.Template.BasePath "/config-map.yaml") . | sha256sum }}
    spec:
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - key: nvidia.com/gpu.product
                    operator: In
                    values: {{ .Values.gpu | toJson }}
      tolerations:
        - key: nvidia.com/gpu
          operator: Exists
          effect: NoSchedule
        {{- with .Values.kubernetes.tolerations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.triton.image.pullSecrets }}
      imagePullSecrets: {{ . | toJson }}
      {{- end }}
      terminationGracePeriodSeconds: 300
      initContainers:
        - name: prepare
          image: {{ .Values.triton.image.name | toJson }}
          command: ["/bin/sh", "/etc/prepare/prepare.sh"]
          env:
            - name: MODEL
              value: {{ .Values.model.name | replace "$" "$$" | toJson }}
            - name: WEIGHTS
              value: {{ include "triton.weights" . | replace "$" "$$" | toJson }}
            - name: REPOSITORY
              value: {{ .Values.triton.sourceRepository | toJson }}
          {{- with .Values.model.pullSecret }}
          envFrom:
            - secretRef:
                name: {{ . | toJson }}
                optional: true
          {{- end }}
          volumeMounts:
            - name: config
              mountPath: /etc/prepare
            - name: models
              mountPath: /var/run/models
            - name: repository
              mountPath: /var/run/repository
      containers:
        - name: triton
          image: {{ .Values.triton.image.name | toJson }}
          command: ["mpirun"]
          args:
            - --allow-run-as-root
            - -n
            - "1"
            - tritonserver
            - --model-repository=/var/run/repository
            - --disable-auto-complete-config
            - --backend-config=python,shm-region-prefix-name=prefix0_
            - --http-port=8000
            - --grpc-port=8001
            - --metrics-port=8002
          ports:
            - name: http
              containerPort: 8000
            - name: grpc
              containerPort: 8001
            - name: metrics
              containerPort: 8002
          startupProbe:
            httpGet:
              path: /v2/health/ready
              port: http
            periodSeconds: 10
            failureThreshold: 180
          livenessProbe:
            httpGet:
              path: /v2/health/live
              port: http
            periodSeconds: 10
            failureThreshold: 3
          readinessProbe:
            httpGet:
              path: /v2/health/ready
              port: http
            periodSeconds: 5
            failureThreshold: 3
          resources:
            requests:
              cpu: {{ .Values.triton.resources.cpu | toJson }}
              memory: {{ .Values.triton.resources.memory | toJson }}
              nvidia.com/gpu: {{ $gpus }}
            limits:
              memory: {{ .Values.triton.resources.memory | toJson }}
              nvidia.com/gpu: {{ $gpus }}
          volumeMounts:
            - name: models
              mountPath: /var/run/models
            - name: repository
              mountPath: /var/run/repository
            - name: shared-memory
              mountPath: /dev/shm
      volumes:
        - name: config
          configMap:
            name: {{ include "triton.name" . }}
        - name: models
          persistentVolumeClaim:
            claimName: {{ include "triton.claim" . }}
        - name: repository
          emptyDir: {}
        - name: shared-memory
          emptyDir:
            medium: Memory
            sizeLimit: {{ .Values.triton.sharedMemory | toJson }}
)T";

constexpr std::string_view kService = R"T(apiVersion: v1
kind: Service
metadata:
  name: {{ include "triton.name" . }}
  labels:
    {{- include "triton.labels" . | nindent 4 }}
spec:
  selector:
    {{- include "triton.selector" . | nindent 4 }}
  ports:
    - name: http
      port: 8000
      targetPort: http
    - name: grpc
      port: 8001
      targetPort: grpc
)T";

constexpr std::string_view kAutoscaler = R"T({{- if .Values.autoscaling.enable }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "triton.name" . }}
  labels:
    {{- include "triton.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "triton.name" . }}
  minReplicas: {{ .Values.autoscaling.replicas.minimum }}
  maxReplicas: {{ .Values.autoscaling.replicas.maximum }}
  metrics:
    - type: Pods
      pods:
        metric:
          name: {{ .Values.autoscaling.metric.name | toJson }}
        target:
          type: AverageValue
          averageValue: {{ .Values.autoscaling.metric.value | toJson }}
{{- end }}
)T";

constexpr std::string_view kPodMonitor = R"T({{- if .Values.monitoring.enable }}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "triton.name" . }}
  labels:
    {{- include "triton.labels" . | nindent 4 }}
    {{- with .Values.monitoring.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "triton.selector" . | nindent 6 }}
  podMetricsEndpoints:
    - port: metrics
      path: /metrics
{{- end }}
)T";

// The ratios by which the autoscaler and people judge the load; clamp_min keeps an idle server from dividing by 0.
constexpr std::string_view kPrometheusRule = R"T({{- if .Values.monitoring.enable }}
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {{ include "triton.name" . }}
  labels:
    {{- include "triton.labels" . | nindent 4 }}
    {{- with .Values.monitoring.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  groups:
    - name: triton
      interval: 6s
      rules:
        - record: triton:queue_compute:ratio
          expr: rate(nv_inference_queue_duration_us[1m]) / clamp_min(rate(nv_inference_compute_infer_duration_us[1m]), 1)
        - record: triton:compute_duration:average
          expr: rate(nv_inference_compute_infer_duration_us[1m]) / clamp_min(rate(nv_inference_request_success[1m]), 1)
        - record: triton:queue_duration:average
          expr: rate(nv_inference_queue_duration_us[1m]) / clamp_min(rate(nv_inference_request_success[1m]), 1)
        - record: triton:request_duration:average
          expr: rate(nv_inference_request_duration_us[1m]) / clamp_min(rate(nv_inference_request_success[1m]), 1)
{{- end }}
)T";

constexpr std::string_view kClaim = R"T({{- if not .Values.storage.existingClaim }}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ include "triton.claim" . }}
  labels:
    {{- include "triton.labels" . | nindent 4 }}
spec:
  accessModes: [{{ .Values.storage.accessMode | toJson }}]
  {{- with .Values.storage.className }}
  storageClassName: {{ . | toJson }}
  {{- end }}
  resources:
    requests:
      storage: {{ .Values.storage.size | toJson }}
{{- end }}
)T";

constexpr std::array<ChartFile, 9> kChartFiles = {{
    {"templates/_helpers.tpl", kHelpers, "names and labels of the chart"},
    {"templates/config-map.yaml", kConfigMap, "TensorRT-LLM's options and the preparation's script"},
    {"files/prepare.sh", kPrepare, "what runs before the server: weights and model repository"},
    {"templates/deployment.yaml", kDeployment, "the servers"},
    {"templates/service.yaml", kService, "where users reach them"},
    {"templates/horizontal-pod-autoscaler.yaml", kAutoscaler, "autoscaling by the queue's share"},
    {"templates/pod-monitor.yaml", kPodMonitor, "scraping of metrics"},
    {"templates/prometheus-rule.yaml", kPrometheusRule, "the ratios that autoscaling reads"},
    {"templates/pvc.yaml", kClaim, "the volume for the weights"},
}};

}  // namespace

std::span<const ChartFile> triton_chart_files() { return kChartFiles; }

}  // namespace drydock::generators
