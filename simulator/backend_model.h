#pragma once
// What kernel tables can't know of a serving backend: how it batches, and a few physical figures around the kernels.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "models/plan.h"

namespace drydock::simulator {

// How a step is filled. Sources: vLLM V1 scheduler (running requests first, then prompt chunks within
// max_num_batched_tokens), SGLang scheduler (a waiting prompt runs before decode goes on), TensorRT-LLM capacity and
// micro-batch schedulers (whole prompts beside decode within max_num_tokens).
enum class Admission : uint8_t { mixed_chunks, prefill_first, mixed_whole };

// Fields from `host_us` on are calibrated on measured serving points; docs/accuracy.md gives the method and the errors.
// Shared by all models and GPUs of a backend.
struct BackendModel {
  models::Backend backend{};
  Admission admission = Admission::mixed_chunks;
  int64_t max_tokens = 8192;     // default token budget of a step
  double memory_fraction = 0.9;  // of the GPU's memory that the engine may fill
  int64_t result_delay = 0;      // steps launched before the results of an earlier one are known (overlap scheduling)
  bool pads_ranks = false;       // under attention DP experts see as many tokens of every rank as the fullest brings
  bool reserves_output = false;  // KV for prompt and whole output is set aside at admission
  double host_us = 0;            // per step: scheduling, launch and sampling that the GPU waits for
  double host_us_per_sequence = 0;       // of the above, per running sequence
  double layer_us = 0;                   // per layer and step: gaps and small kernels between the priced ones
  double prompt_us = 0;                  // step time per prompt that starts in it
  double request_ms = 0;                 // TTFT outside the engine: HTTP, tokenizer, first detokenized chunk
  double request_ms_per_concurrent = 0;  // the same, per request in flight
  double hand_over_ms = 0;               // TTFT more of plans with prefill and decode apart, the KV transfer aside
  // Time of a kernel inside a running engine over its time alone in the tables.
  double gemm = 1, attention = 1, moe = 1, communication = 1;
  double moe_many = 1;          // the same of experts with very many tokens each, reached by half at 64
  double moe_fp8_block = 1;     // of block-scaled fp8 experts on Hopper, whose Triton kernels have few tuned shapes
  double latent_prompt_us = 0;  // least time a layer of latent attention takes in a step with prompts: its launches
  double prompt_kernels = 1;  // of all kernels in steps that hold a prompt: no full CUDA graph, more activation traffic
  double collective_us = 0;   // per collective, ranks waiting for the last one
  // What `drydock calibrate` moves to fit a user's own measurements, on top of the figures above: times of ops bound by
  // arithmetic, of ops bound by memory, all host time of a step, and all time per request.
  double compute = 1, bandwidth = 1, host = 1, request = 1;
  // Half-width of the 80 % band of ln(measured / predicted) that is left when kernel times are exact.
  double ttft_spread = 0.3, tpot_spread = 0.15;
  // The same of plans with prefill and decode apart, of which less is known; never narrower.
  double disagg_ttft_spread = 0, disagg_tpot_spread = 0;

  double ttft_spread_of(bool apart) const { return apart ? std::max(ttft_spread, disagg_ttft_spread) : ttft_spread; }
  double tpot_spread_of(bool apart) const { return apart ? std::max(tpot_spread, disagg_tpot_spread) : tpot_spread; }
  double step_host_us() const { return host * host_us; }
  double sequence_host_us() const { return host * host_us_per_sequence; }
  double least_prompt_us() const { return host * latent_prompt_us; }
  double layer_gap_us() const { return host * layer_us; }
  double prompt_step_us() const { return request * prompt_us; }
  double outside_ms(double in_flight) const { return request * (request_ms + request_ms_per_concurrent * in_flight); }
  double hand_over(bool apart) const { return apart ? request * hand_over_ms : 0; }
};

// calibration.json of the data folder, one entry per backend. Throws core::Error naming file and field.
std::vector<BackendModel> read_backend_models(const std::filesystem::path& json);
std::string to_json(const std::vector<BackendModel>& models);

}  // namespace drydock::simulator
