#pragma once
// The parts of a question that sweep and fleet files have in common.
#include <string>
#include <string_view>
#include <vector>

#include "configurator/search.h"
#include "configurator/yaml.h"
#include "core/json.h"

namespace drydock::configurator {

// A name of a file's, with the line it stands on, for errors that only its use brings up.
struct NamedLine {
  std::string text;
  int line = 1;
};

// isl, osl, prefix_hit, rate, concurrency. Throws core::Error naming file, line and field.
models::Workload workload_of(const YamlFields& fields);
// ttft, tpot, request_latency, percentile ("p95", 95, mean; p95 where it is not given).
models::Slo slo_of(const YamlFields& fields);

ModeChoice mode_of(const YamlFields& fields);  // mode: agg, disagg, both
Method method_of(const YamlFields& fields);    // method: simulate, analytic
std::optional<models::Backend> backend_of(const YamlNode& node, std::string_view origin,
                                          std::string_view what);  // auto: nullopt
// A word that choose_precision knows; whether a model has it is another matter.
std::string precision_of(const YamlNode& node, std::string_view origin, std::string_view what);
std::string_view name(ModeChoice mode);

// As drydock writes them into its answers.
core::Json workload_json(const models::Workload& workload);
core::Json slo_json(const models::Slo& slo);

// FNV-1a over 64 bits, as 16 hex digits: tells files apart, not hostile ones.
std::string fingerprint(std::string_view bytes);

}  // namespace drydock::configurator
