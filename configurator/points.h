#pragma once
// Points: deployments as rows of a CSV, measured or to be predicted, and how far predictions are from measurements.
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "configurator/predict.h"
#include "configurator/resources.h"
#include "core/csv.h"
#include "models/plan.h"

namespace drydock::configurator {

// A row's deployment as a plan. Columns: mode, model, system, backend, precision, gemm_quant_mode, isl, osl,
// concurrency, and tp_size, pp_size, attention_dp_size, moe_tp_size, moe_ep_size of an aggregated instance, or these
// with prefill_ and decode_ before them, beside prefill_batch_size and prefill_num_workers (decode_ likewise). Parallel
// sizes that no engine can run are read as what their writer must have meant. Optional columns: stream_interval (tokens
// the server gathers before it sends them), length_spread (the client draws lengths from [1 - spread, 1] of the nominal
// ones), prefix_hit (share of the prompt in the prefix cache), max_num_tokens (token budget of a step), max_batch
// (sequences of an aggregated attention-DP rank), connections (of the client), kv_precision. Throws core::Error naming
// line and column.
//
// What the columns leave open is read by fixed rules; `readings` gets the names of those that this row needed:
// square_of_gpus (moe_tp = ep = X, or tp = attention_dp = X and ep = X x X, count the same X GPUs twice), smaller_tp,
// whole_experts (attention DP = moe_tp = X), several_instances (a concurrency of several batches),
// lengths_from_80_percent (InferenceX, and AIPerf against vLLM), drift_of_14_tokens (other lengths against vLLM;
// against the others they are equal), repeated_prompts (100 prompts sent again and again against vLLM's prefix cache),
// old_block_fp8 (Qwen's FP8 checkpoints on TensorRT-LLM 1.0), connections_of_100 (vLLM before 0.12 with more in
// flight), and those of recipes.h. docs/accuracy.md says what each is worth.
using Readings = std::set<std::string>;
models::Plan plan_of(const core::Csv& points, size_t row, Resources& resources, Readings* readings = nullptr);

struct PointPrediction {
  std::optional<models::Prediction> prediction;
  std::string provenance;  // shares of kernel time: "interpolated=92% analytic=8%"
  std::string error;       // why there is no prediction
  Readings readings;       // rules that the row was read by
};
// One prediction a row, on all cores. Bad rows carry their error; a file without the columns throws core::Error.
std::vector<PointPrediction> predict_points(const core::Csv& points, Resources& resources,
                                            Method method = Method::simulate);

// The columns of `points` as they are, and after them predicted_ttft_ms, predicted_tpot_ms, their _low_ms and _high_ms,
// provenance, error.
std::string predictions_csv(const core::Csv& points, const std::vector<PointPrediction>& predictions);

struct ErrorSummary {
  int64_t rows = 0, predicted = 0;
  struct Figure {
    double mape = 0, median = 0, bias = 0, within20 = 0, in_band = 0;  // percent; bias: median of the signed error
  } ttft, tpot;
};
// Choosing among measured deployments of one model, system, precision and lengths by predicted throughput per GPU under
// a TPOT target: what share of the best measured throughput is lost, and how often the chosen one misses its target by
// 10 %.
struct Regret {
  int64_t choices = 0, misses = 0;
  double mean_loss = 0;  // percent
};
struct Validation {
  ErrorSummary all;                            // every row
  ErrorSummary clean;                          // rows without spec_doubt
  std::map<std::string, ErrorSummary> groups;  // "model=...", "system=...", "backend=...", "mode=..." over clean rows
  Regret regret;                               // over clean rows
  std::map<std::string, int64_t> readings;     // clean rows that each reading rule touched
};
// Needs columns ttft_ms and tpot_ms.
Validation validate(const core::Csv& points, const std::vector<PointPrediction>& predictions);

}  // namespace drydock::configurator
