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

// Every number of an entry that may be fitted.
struct NamedFigure {
  std::string_view name;
  double BackendModel::*figure;
  double least, most;
  bool optional = false;
};
constexpr double kLeastScale = 0.1, kMostScale = 10, kMostUs = 1e6, kMostMs = 1e4, kMostSpread = 3;
constexpr std::array<NamedFigure, 24> kFigures = {{
    {"host_us", &BackendModel::host_us, 0, kMostUs},
    {"host_us_per_sequence", &BackendModel::host_us_per_sequence, 0, kMostUs},
    {"layer_us", &BackendModel::layer_us, 0, kMostUs},
    {"prompt_us", &BackendModel::prompt_us, 0, kMostUs},
    {"request_ms", &BackendModel::request_ms, 0, kMostMs},
    {"request_ms_per_concurrent", &BackendModel::request_ms_per_concurrent, 0, kMostMs},
    {"hand_over_ms", &BackendModel::hand_over_ms, 0, kMostMs, true},
    {"gemm", &BackendModel::gemm, kLeastScale, kMostScale},
    {"attention", &BackendModel::attention, kLeastScale, kMostScale},
    {"moe", &BackendModel::moe, kLeastScale, kMostScale},
    {"communication", &BackendModel::communication, kLeastScale, kMostScale},
    {"moe_many", &BackendModel::moe_many, kLeastScale, kMostScale, true},
    {"moe_fp8_block", &BackendModel::moe_fp8_block, kLeastScale, kMostScale, true},
    {"prompt_kernels", &BackendModel::prompt_kernels, kLeastScale, kMostScale, true},
    {"latent_prompt_us", &BackendModel::latent_prompt_us, 0, kMostUs, true},
    {"collective_us", &BackendModel::collective_us, 0, kMostUs, true},
    {"compute", &BackendModel::compute, kLeastScale, kMostScale, true},
    {"bandwidth", &BackendModel::bandwidth, kLeastScale, kMostScale, true},
    {"host", &BackendModel::host, kLeastScale, kMostScale, true},
    {"request", &BackendModel::request, kLeastScale, kMostScale, true},
    {"ttft_spread", &BackendModel::ttft_spread, 0, kMostSpread},
    {"tpot_spread", &BackendModel::tpot_spread, 0, kMostSpread},
    {"disagg_ttft_spread", &BackendModel::disagg_ttft_spread, 0, kMostSpread, true},
    {"disagg_tpot_spread", &BackendModel::disagg_tpot_spread, 0, kMostSpread, true},
}};

Admission read_admission(const core::Fields& fields) {
  const std::string text = fields.text("admission");
  for (const AdmissionName& known : kAdmissions)
    if (known.name == text) return known.admission;
  throw fields.error("admission", "'" + text + "' is none of mixed_chunks, prefill_first, mixed_whole");
}

BackendModel read_one(models::Backend backend, const core::Fields& f) {
  f.only({"admission",
          "max_tokens",
          "memory_fraction",
          "reserves_output",
          "result_delay",
          "pads_ranks",
          "host_us",
          "host_us_per_sequence",
          "layer_us",
          "prompt_us",
          "request_ms",
          "request_ms_per_concurrent",
          "hand_over_ms",
          "gemm",
          "attention",
          "moe",
          "communication",
          "moe_many",
          "moe_fp8_block",
          "prompt_kernels",
          "collective_us",
          "latent_prompt_us",
          "compute",
          "bandwidth",
          "host",
          "request",
          "ttft_spread",
          "tpot_spread",
          "disagg_ttft_spread",
          "disagg_tpot_spread"});
  BackendModel m;
  m.backend = backend;
  m.admission = read_admission(f);
  m.max_tokens = f.integer("max_tokens", 1, 1 << 20);
  m.memory_fraction = f.number("memory_fraction", 0.05, 1);
  m.result_delay = f.integer_or("result_delay", 0, 0, 4);
  m.pads_ranks = f.boolean_or("pads_ranks", false);
  m.reserves_output = f.boolean_or("reserves_output", false);
  for (const NamedFigure& known : kFigures)
    m.*known.figure = known.optional ? f.number_or(known.name, m.*known.figure, known.least, known.most)
                                     : f.number(known.name, known.least, known.most);
  return m;
}

}  // namespace

std::vector<BackendModel> read_backend_models(const std::filesystem::path& json) {
  const core::Json document = core::read_json(json);
  const core::Fields fields(document, json.string());
  fields.only({"trtllm", "vllm", "sglang", "drydock"});
  std::vector<BackendModel> models;
  for (int i = 0; i < models::kBackends; ++i) {
    const auto backend = static_cast<models::Backend>(i);
    if (backend == models::Backend::drydock && !fields.has("drydock"))  // files made before it was there
      models.push_back({.backend = backend});
    else
      models.push_back(read_one(backend, fields.object(models::name(backend))));
  }
  return models;
}

std::string to_json(const std::vector<BackendModel>& models) {
  core::Json json = core::Json::object();
  for (const BackendModel& m : models) {
    core::Json one = {{"admission", kAdmissions[static_cast<size_t>(m.admission)].name},
                      {"max_tokens", m.max_tokens},
                      {"memory_fraction", m.memory_fraction},
                      {"pads_ranks", m.pads_ranks},
                      {"reserves_output", m.reserves_output},
                      {"result_delay", m.result_delay}};
    for (const NamedFigure& f : kFigures) one[std::string(f.name)] = m.*f.figure;
    json[std::string(models::name(m.backend))] = one;
  }
  return json.dump(2) + "\n";
}

}  // namespace drydock::simulator
