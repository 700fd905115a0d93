#include "simulator/backend_model.h"

#include <array>

#include "core/json.h"

namespace drydock::simulator {
namespace {

struct AdmissionName {
  Admission admission;
  std::string_view name;
};
constexpr std::array<AdmissionName, 3> kAdmissions = {{{Admission::mixed_chunks, "mixed_chunks"},
                                                       {Admission::prefill_first, "prefill_first"},
                                                       {Admission::mixed_whole, "mixed_whole"}}};

Admission read_admission(const core::Fields& fields) {
  const std::string text = fields.text("admission");
  for (const AdmissionName& known : kAdmissions)
    if (known.name == text) return known.admission;
  throw fields.error("admission", "'" + text + "' is none of mixed_chunks, prefill_first, mixed_whole");
}

BackendModel read_one(models::Backend backend, const core::Fields& f) {
  f.only({"admission", "max_tokens", "memory_fraction", "reserves_output", "host_us", "host_us_per_sequence",
          "layer_us", "prompt_us", "request_ms", "request_ms_per_concurrent", "gemm", "attention", "moe",
          "communication", "ttft_spread", "tpot_spread"});
  constexpr double kLeastScale = 0.1, kMostScale = 10, kMostUs = 1e6, kMostMs = 1e4, kMostSpread = 3;
  BackendModel m;
  m.backend = backend;
  m.admission = read_admission(f);
  m.max_tokens = f.integer("max_tokens", 1, 1 << 20);
  m.memory_fraction = f.number("memory_fraction", 0.05, 1);
  m.reserves_output = f.boolean_or("reserves_output", false);
  m.host_us = f.number("host_us", 0, kMostUs);
  m.host_us_per_sequence = f.number("host_us_per_sequence", 0, kMostUs);
  m.layer_us = f.number("layer_us", 0, kMostUs);
  m.prompt_us = f.number("prompt_us", 0, kMostUs);
  m.request_ms = f.number("request_ms", 0, kMostMs);
  m.request_ms_per_concurrent = f.number("request_ms_per_concurrent", 0, kMostMs);
  m.gemm = f.number("gemm", kLeastScale, kMostScale);
  m.attention = f.number("attention", kLeastScale, kMostScale);
  m.moe = f.number("moe", kLeastScale, kMostScale);
  m.communication = f.number("communication", kLeastScale, kMostScale);
  m.ttft_spread = f.number("ttft_spread", 0, kMostSpread);
  m.tpot_spread = f.number("tpot_spread", 0, kMostSpread);
  return m;
}

}  // namespace

std::vector<BackendModel> read_backend_models(const std::filesystem::path& json) {
  const core::Json document = core::read_json(json);
  const core::Fields fields(document, json.string());
  fields.only({"trtllm", "vllm", "sglang"});
  std::vector<BackendModel> models;
  for (int i = 0; i < models::kBackends; ++i) {
    const auto backend = static_cast<models::Backend>(i);
    models.push_back(read_one(backend, fields.object(models::name(backend))));
  }
  return models;
}

}  // namespace drydock::simulator
