#include "configurator/yaml_question.h"

#include <fmt/format.h>

#include <charconv>

#include "core/text.h"

namespace drydock::configurator {
namespace {

constexpr int64_t kMostYamlTokens = 10'000'000;
constexpr double kMostYamlRate = 1e7, kMostYamlInFlight = 1e7, kMostYamlShare = 0.999999;

// The value of `text` among `known`; the error lists them.
template <typename T>
T one_of(const std::string& text, const YamlNode& node, std::string_view origin, std::string_view what,
         const std::vector<std::pair<std::string, T>>& known) {
  std::vector<std::string> names;
  for (const auto& [name, value] : known) {
    if (name == text) return value;
    names.push_back(name);
  }
  throw yaml_error(origin, node.line,
                   fmt::format("{}: '{}' is none of {}{}", what, text.substr(0, 60), fmt::join(names, ", "),
                               core::suggestion(text, names)));
}

template <typename T>
T choice_of(const YamlFields& fields, std::string_view field, const char* otherwise,
            const std::vector<std::pair<std::string, T>>& known) {
  const std::string text = fields.text_or(field, otherwise);
  for (const auto& [name, value] : known)
    if (name == text) return value;
  std::vector<std::string> names;
  for (const auto& [name, value] : known) names.push_back(name);
  throw fields.error(field, fmt::format("'{}' is none of {}{}", text.substr(0, 60), fmt::join(names, ", "),
                                        core::suggestion(text, names)));
}

std::optional<double> percentile_of(const YamlFields& fields) {
  const std::string text = fields.text_or("percentile", "p95");
  if (text == "mean") return std::nullopt;
  const std::string_view number = std::string_view(text).substr(text.starts_with("p") ? 1 : 0);
  double value = 0;
  const auto [end, status] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (status != std::errc{} || end != number.data() + number.size() || !(value >= 50 && value <= 99.9))
    throw fields.error("percentile", "want mean, or p50 to p99.9 such as p95, found '" + text.substr(0, 60) + "'");
  return value;
}

}  // namespace

models::Workload workload_of(const YamlFields& fields) {
  models::Workload w;
  w.isl = fields.integer("isl", 1, kMostYamlTokens);
  w.osl = fields.integer("osl", 1, kMostYamlTokens);
  w.prefix_hit = fields.number_or("prefix_hit", 0, 0, kMostYamlShare);
  constexpr double kLeast = 1e-9;
  w.rate = fields.optional_number("rate", kLeast, kMostYamlRate);
  if (fields.has("concurrency"))
    w.concurrency = static_cast<double>(fields.integer("concurrency", 1, static_cast<int64_t>(kMostYamlInFlight)));
  if (w.rate && w.concurrency) throw fields.error("concurrency", "goes without rate; give one of them");
  return w;
}

models::Slo slo_of(const YamlFields& fields) {
  return {fields.optional_ms("ttft"), fields.optional_ms("tpot"), fields.optional_ms("request_latency"),
          percentile_of(fields)};
}

ModeChoice mode_of(const YamlFields& fields) {
  return choice_of<ModeChoice>(fields, "mode", "both",
                               {{"agg", ModeChoice::agg}, {"disagg", ModeChoice::disagg}, {"both", ModeChoice::both}});
}

Method method_of(const YamlFields& fields) {
  return choice_of<Method>(fields, "method", "simulate",
                           {{"simulate", Method::simulate}, {"analytic", Method::analytic}});
}

std::optional<models::Backend> backend_of(const YamlNode& node, std::string_view origin, std::string_view what) {
  std::vector<std::pair<std::string, std::optional<models::Backend>>> known{{"auto", std::nullopt}};
  for (int i = 0; i < models::kBackends; ++i) {
    const auto backend = static_cast<models::Backend>(i);
    known.emplace_back(models::name(backend), backend);
  }
  return one_of(scalar_text(node, origin, what), node, origin, what, known);
}

std::string precision_of(const YamlNode& node, std::string_view origin, std::string_view what) {
  std::vector<std::pair<std::string, std::string>> known;
  for (const char* word : {"auto", "bf16", "fp8", "fp8_block", "int8", "int4", "nvfp4", "fp4", "mxfp4"})
    known.emplace_back(word, word);
  return one_of(scalar_text(node, origin, what), node, origin, what, known);
}

std::string_view name(ModeChoice mode) {
  return mode == ModeChoice::agg ? "agg" : mode == ModeChoice::disagg ? "disagg" : "both";
}

core::Json workload_json(const models::Workload& w) {
  core::Json out = {{"isl", w.isl}, {"osl", w.osl}, {"prefix_hit", w.prefix_hit}};
  if (w.rate) out["rate"] = *w.rate;
  if (w.concurrency) out["concurrency"] = *w.concurrency;
  return out;
}

core::Json slo_json(const models::Slo& slo) {
  core::Json out = core::Json::object();
  if (slo.ttft_ms) out["ttft_ms"] = *slo.ttft_ms;
  if (slo.tpot_ms) out["tpot_ms"] = *slo.tpot_ms;
  if (slo.request_latency_ms) out["request_latency_ms"] = *slo.request_latency_ms;
  if (slo.percentile)
    out["percentile"] = *slo.percentile;
  else
    out["percentile"] = "mean";
  return out;
}

std::string fingerprint(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325u;  // offset basis and prime of FNV-1a
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return fmt::format("{:016x}", hash);
}

}  // namespace drydock::configurator
