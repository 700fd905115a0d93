// Reads fleet.yaml.
#include <fmt/format.h>

#include <set>

#include "configurator/fleet.h"
#include "core/file.h"

namespace drydock::configurator {
namespace {

constexpr size_t kMostFleetModels = 200, kMostFleetTypes = 50;
constexpr int64_t kMostFleetGpus = 1'000'000;

Fleet::Stock stock_of(const YamlNode& node, std::string_view origin, const std::string& field) {
  const YamlFields fields(node, origin, field);
  fields.only({"system", "gpus", "price"});
  constexpr double kLeastPrice = 1e-9, kMostPrice = 1e5;
  return {{fields.text("system"), fields.require("system").line},
          fields.integer("gpus", 0, kMostFleetGpus),
          fields.optional_number("price", kLeastPrice, kMostPrice)};
}

Fleet::Model model_of(const YamlNode& node, std::string_view origin, const std::string& field) {
  const YamlFields fields(node, origin, field);
  fields.only({"name", "model", "precision", "kv_precision", "backend", "isl", "osl", "prefix_hit", "rate", "ttft",
               "tpot", "request_latency", "percentile"});
  Fleet::Model out;
  out.model = {fields.text("model"), fields.require("model").line};
  out.name = fields.text_or("name", out.model.text.substr(out.model.text.find_last_of('/') + 1));
  for (auto [name, into] : {std::pair("precision", &out.precision), std::pair("kv_precision", &out.kv_precision)})
    if (fields.has(name)) *into = precision_of(fields.require(name), origin, fmt::format("field '{}.{}'", field, name));
  if (fields.has("backend"))
    out.backend = backend_of(fields.require("backend"), origin, "field '" + field + ".backend'");
  out.workload = workload_of(fields);
  if (!out.workload.rate) throw fields.error("rate", "missing; a fleet is sized for requests/s");
  out.slo = slo_of(fields);
  return out;
}

template <typename T, typename Read>
std::vector<T> entries_of(const YamlFields& fields, const char* field, std::string_view origin, size_t most,
                          const Read& read) {
  if (fields.require(field).kind != YamlNode::Kind::list) throw fields.error(field, "want a list");
  const auto values = fields.values(field);
  if (values.size() > most) throw fields.error(field, fmt::format("more than {} entries", most));
  std::vector<T> out;
  for (size_t i = 0; i < values.size(); ++i) out.push_back(read(*values[i], origin, fmt::format("{}[{}]", field, i)));
  return out;
}

}  // namespace

Fleet parse_fleet(std::string_view yaml, std::string_view origin) {
  const YamlNode root = parse_yaml(yaml, origin);
  const YamlFields fields(root, origin);
  fields.only({"stock", "models", "mode", "mixed_pools", "headroom", "unit_gpus"});
  Fleet out;
  out.origin = origin;
  out.stock = entries_of<Fleet::Stock>(fields, "stock", origin, kMostFleetTypes, stock_of);
  out.models = entries_of<Fleet::Model>(fields, "models", origin, kMostFleetModels, model_of);
  out.mode = mode_of(fields);
  out.mixed_pools = fields.boolean_or("mixed_pools", false);
  constexpr double kMostHeadroom = 0.9;
  constexpr int64_t kMostUnitGpus = 1024;
  out.headroom = fields.number_or("headroom", 0, 0, kMostHeadroom);
  if (fields.has("unit_gpus")) out.unit_gpus = static_cast<int>(fields.integer("unit_gpus", 1, kMostUnitGpus));
  std::set<std::string> systems, names;
  for (const auto& stock : out.stock)
    if (!systems.insert(stock.system.text).second)
      throw yaml_error(origin, stock.system.line, "system '" + stock.system.text.substr(0, 60) + "' is there twice");
  for (const auto& model : out.models)
    if (!names.insert(model.name).second)
      throw yaml_error(origin, model.model.line,
                       "name '" + model.name.substr(0, 60) + "' is there twice; want a name of its own for each");
  return out;
}

Fleet read_fleet(const std::filesystem::path& file) {
  return parse_fleet(core::read_file(file, kMostYamlBytes), file.string());
}

}  // namespace drydock::configurator
