#include "configurator/sweep.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <set>

#include "core/file.h"

namespace drydock::configurator {
namespace {

constexpr int64_t kMostSweepGpus = 16384;
constexpr double kMostSweepPrice = 1e5;
constexpr size_t kMostSweepList = 1000;  // entries of one list

// The entries of a list field, each with its name in errors; `otherwise` stands for a field that is not there.
template <typename T, typename Read>
std::vector<T> list_of(const YamlFields& fields, const char* field, std::optional<T> otherwise, const Read& read) {
  if (otherwise && !fields.has(field)) return {std::move(*otherwise)};
  const auto values = fields.values(field);
  if (values.size() > kMostSweepList) throw fields.error(field, fmt::format("more than {} entries", kMostSweepList));
  const bool several = fields.require(field).kind == YamlNode::Kind::list;
  std::vector<T> out;
  for (size_t i = 0; i < values.size(); ++i)
    out.push_back(read(*values[i], several ? fmt::format("{}[{}]", field, i) : std::string(field)));
  return out;
}

std::string quoted(const std::string& field) { return "field '" + field + "'"; }

NamedLine named(const YamlNode& node, std::string_view origin, const std::string& field) {
  return {scalar_text(node, origin, quoted(field)), node.line};
}

// A name, or {prefill: .., decode: ..}.
Sweep::Systems systems_of(const YamlNode& node, std::string_view origin, const std::string& field) {
  if (node.kind != YamlNode::Kind::map) return {named(node, origin, field), {}};
  const YamlFields both(node, origin, field);
  both.only({"prefill", "decode"});
  return {named(both.require("prefill"), origin, field + ".prefill"),
          named(both.require("decode"), origin, field + ".decode")};
}

std::string short_number(double value) { return fmt::format("{:g}", value); }

// "2000/500", "2000/500 rate 5"
std::string workload_name(const models::Workload& w) {
  std::string out = fmt::format("{}/{}", w.isl, w.osl);
  if (w.prefix_hit > 0) out += " hit " + short_number(w.prefix_hit);
  if (w.rate) out += " rate " + short_number(*w.rate);
  if (w.concurrency) out += " conc " + short_number(*w.concurrency);
  return out;
}

// "ttft 1000 tpot 20 p95"
std::string slo_name(const models::Slo& slo) {
  std::string out;
  const auto add = [&](const char* what, const std::optional<double>& ms) {
    if (ms) out += fmt::format("{}{} {}", out.empty() ? "" : " ", what, short_number(*ms));
  };
  add("ttft", slo.ttft_ms);
  add("tpot", slo.tpot_ms);
  add("latency", slo.request_latency_ms);
  if (out.empty()) return "none";
  return out + (slo.percentile ? " p" + short_number(*slo.percentile) : " mean");
}

Sweep::NamedWorkload read_workload(const YamlNode& node, std::string_view origin, const std::string& field) {
  const YamlFields fields(node, origin, field);
  fields.only({"name", "isl", "osl", "prefix_hit", "rate", "concurrency"});
  const models::Workload w = workload_of(fields);
  return {fields.text_or("name", workload_name(w)), w};
}

Sweep::NamedSlo read_slo(const YamlNode& node, std::string_view origin, const std::string& field) {
  const YamlFields fields(node, origin, field);
  fields.only({"name", "ttft", "tpot", "request_latency", "percentile"});
  const models::Slo slo = slo_of(fields);
  return {fields.text_or("name", slo_name(slo)), slo};
}

Goal goal_of(const YamlFields& fields) {
  const std::string text = fields.text_or("goal", "cost");
  if (text == "cost") return Goal::throughput_per_gpu;
  if (text == "fewest_gpus") return Goal::fewest_gpus;
  throw fields.error("goal", "want cost or fewest_gpus, found '" + text.substr(0, 60) + "'");
}

std::map<std::string, NamedLine> prices_of(const YamlFields& fields, std::string_view origin) {
  std::map<std::string, NamedLine> out;
  if (!fields.has("prices")) return out;
  const YamlFields prices = fields.map("prices");
  for (const auto& [system, node] : prices.node().fields) {
    scalar_number(node, origin, quoted("prices." + system.substr(0, 60)), 1e-9, kMostSweepPrice);
    out[system] = {node.text, node.line};
  }
  return out;
}

// A second equal entry would only be the same work again, under a name that the first already has.
template <typename T, typename Name>
void check_different(const YamlFields& fields, const char* field, const std::vector<T>& list, const Name& name) {
  std::set<std::string> seen;
  for (const T& entry : list)
    if (!seen.insert(name(entry)).second)
      throw fields.error(field, "'" + name(entry).substr(0, 60) + "' is there twice");
}

void check_sweep(const YamlFields& fields, const Sweep& s) {
  const auto same = [](const std::string& text) { return text; };
  check_different(fields, "models", s.models, [](const NamedLine& m) { return m.text; });
  check_different(fields, "systems", s.systems, [](const Sweep::Systems& p) {
    return p.prefill.text + (p.decode.text.empty() ? "" : " + ") + p.decode.text;
  });
  check_different(fields, "precision", s.precisions, same);
  check_different(fields, "backend", s.backends,
                  [](const auto& b) { return b ? std::string(models::name(*b)) : std::string("auto"); });
  check_different(fields, "gpus", s.gpus, [](int n) { return std::to_string(n); });
  check_different(fields, "workloads", s.workloads, [](const auto& w) { return w.name; });
  if (fields.has("slos")) check_different(fields, "slos", s.slos, [](const auto& slo) { return slo.name; });
  if (s.goal == Goal::fewest_gpus)
    for (const auto& w : s.workloads)
      if (!w.workload.rate && !w.workload.concurrency)
        throw fields.error(
            "goal", "fewest_gpus needs a rate or a concurrency; workload '" + w.name.substr(0, 60) + "' has neither");
  if (s.items() > kMostSweepItems)
    throw core::Error(fmt::format("{}: {} combinations; at most {}", s.origin, s.items(), kMostSweepItems));
}

}  // namespace

int64_t Sweep::items() const {
  double product = 1;
  for (const size_t n :
       {models.size(), systems.size(), precisions.size(), backends.size(), gpus.size(), workloads.size(), slos.size()})
    product *= static_cast<double>(n);
  return static_cast<int64_t>(std::min(product, 1e15));
}

Sweep parse_sweep(std::string_view yaml, std::string_view origin) {
  const YamlNode root = parse_yaml(yaml, origin);
  const YamlFields fields(root, origin);
  fields.only({"models", "systems", "precision", "kv_precision", "backend", "gpus", "workloads", "slos", "mode",
               "method", "goal", "prices"});
  Sweep s;
  s.origin = origin;
  s.models =
      list_of<NamedLine>(fields, "models", {}, [&](const auto& n, const auto& f) { return named(n, origin, f); });
  s.systems = list_of<Sweep::Systems>(fields, "systems", {},
                                      [&](const auto& n, const auto& f) { return systems_of(n, origin, f); });
  s.precisions = list_of<std::string>(fields, "precision", "auto",
                                      [&](const auto& n, const auto& f) { return precision_of(n, origin, quoted(f)); });
  s.backends = list_of<std::optional<models::Backend>>(
      fields, "backend", std::optional<std::optional<models::Backend>>(std::in_place),
      [&](const auto& n, const auto& f) { return backend_of(n, origin, quoted(f)); });
  s.gpus = list_of<int>(fields, "gpus", 8, [&](const auto& n, const auto& f) {
    return static_cast<int>(scalar_integer(n, origin, quoted(f), 1, kMostSweepGpus));
  });
  s.workloads = list_of<Sweep::NamedWorkload>(
      fields, "workloads", {}, [&](const auto& n, const auto& f) { return read_workload(n, origin, f); });
  s.slos = list_of<Sweep::NamedSlo>(fields, "slos", Sweep::NamedSlo{"none", {}},
                                    [&](const auto& n, const auto& f) { return read_slo(n, origin, f); });
  s.mode = mode_of(fields);
  s.method = method_of(fields);
  s.goal = goal_of(fields);
  if (fields.has("kv_precision"))
    s.kv_precision = precision_of(fields.require("kv_precision"), origin, quoted("kv_precision"));
  s.prices = prices_of(fields, origin);
  if (s.method == Method::analytic)
    for (auto& slo : s.slos) slo.slo.percentile = std::nullopt;  // closed forms know the mean alone
  check_sweep(fields, s);
  return s;
}

Sweep read_sweep(const std::filesystem::path& file) {
  return parse_sweep(core::read_file(file, kMostYamlBytes), file.string());
}

void prepare_sweep(const Sweep& sweep, Resources& resources) {
  const auto at_line = [&](int line, const auto& body) {
    try {
      body();
    } catch (const core::Error& error) {
      throw yaml_error(sweep.origin, line, error.what());
    }
  };
  for (const NamedLine& model : sweep.models) at_line(model.line, [&] { resources.model(model.text); });
  std::set<std::string> used;
  for (const Sweep::Systems& systems : sweep.systems)
    for (const NamedLine* one : {&systems.prefill, &systems.decode})
      if (!one->text.empty() && used.insert(one->text).second) at_line(one->line, [&] { resources.system(one->text); });
  for (const auto& [system, price] : sweep.prices)
    at_line(price.line, [&, &system = system, &price = price] {
      if (!used.contains(system))
        throw core::Error("price of '" + system.substr(0, 60) + "', which systems does not list");
      resources.set_price(system, std::stod(price.text));
    });
}

SweepItem sweep_item(const Sweep& s, int64_t index) {
  SweepItem out;
  out.index = index;
  auto rest = static_cast<size_t>(index);
  const auto pick = [&rest](const auto& list) -> const auto& {
    const auto& chosen = list[rest % list.size()];
    rest /= list.size();
    return chosen;
  };
  Question& q = out.question;
  const auto& slo = pick(s.slos);
  const auto& workload = pick(s.workloads);
  q.gpus = pick(s.gpus);
  q.backend = pick(s.backends);
  q.precision = pick(s.precisions);
  const auto& systems = pick(s.systems);
  q.model = pick(s.models).text;
  q.system = systems.prefill.text;
  q.decode_system = systems.decode.text;
  q.slo = slo.slo;
  q.workload = workload.workload;
  q.mode = s.mode;
  q.method = s.method;
  q.goal = s.goal;
  q.kv_precision = s.kv_precision;
  q.top = 1;
  out.slo = slo.name;
  out.workload = workload.name;
  return out;
}

core::Json sweep_json(const Sweep& s) {
  core::Json models = core::Json::array(), systems = models, backends = models, workloads = models, slos = models;
  for (const NamedLine& m : s.models) models.push_back(m.text);
  for (const Sweep::Systems& p : s.systems) {
    if (p.decode.text.empty())
      systems.push_back(p.prefill.text);
    else
      systems.push_back({{"prefill", p.prefill.text}, {"decode", p.decode.text}});
  }
  for (const auto& b : s.backends) backends.push_back(b ? models::name(*b) : "auto");
  for (const auto& w : s.workloads) {
    workloads.push_back({{"name", w.name}});
    workloads.back().update(workload_json(w.workload));
  }
  for (const auto& slo : s.slos) {
    slos.push_back({{"name", slo.name}});
    slos.back().update(slo_json(slo.slo));
  }
  core::Json out = {{"models", models},
                    {"systems", systems},
                    {"precision", s.precisions},
                    {"backend", backends},
                    {"gpus", s.gpus},
                    {"workloads", workloads},
                    {"slos", slos},
                    {"mode", name(s.mode)},
                    {"method", s.method == Method::simulate ? "simulate" : "analytic"},
                    {"goal", s.goal == Goal::fewest_gpus ? "fewest_gpus" : "cost"},
                    {"kv_precision", s.kv_precision}};
  core::Json prices = core::Json::object();
  for (const auto& [system, price] : s.prices) prices[system] = std::stod(price.text);
  out["prices"] = prices;
  out["items"] = s.items();
  return out;
}

core::Json sweep_basis(const Sweep& s, std::string_view version, const std::filesystem::path& database,
                       const std::filesystem::path& calibration) {
  const auto hash_of = [](const std::filesystem::path& file) { return fingerprint(core::read_file(file)); };
  const auto or_shipped = [](const std::filesystem::path& given, const char* shipped) {
    return given.empty() ? models::data_dir() / shipped : given;
  };
  core::Json files = core::Json::object();
  const auto add = [&](const std::string& name) {
    std::error_code status;
    const std::filesystem::path path = name;
    const auto file = std::filesystem::is_directory(path, status) ? path / "config.json" : path;
    if (!name.empty() && std::filesystem::is_regular_file(file, status)) files[name] = hash_of(file);
  };
  for (const NamedLine& m : s.models) add(m.text);
  for (const Sweep::Systems& p : s.systems) add(p.prefill.text), add(p.decode.text);
  return {{"drydock", version},
          {"database", hash_of(or_shipped(database, "perf.db"))},
          {"calibration", hash_of(or_shipped(calibration, "calibration.json"))},
          {"files", files}};
}

Shard parse_shard(std::string_view text, std::string_view flag) {
  Shard out;
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, out.k);
  const bool slash = first.ec == std::errc{} && first.ptr != end && *first.ptr == '/';
  const auto second = slash ? std::from_chars(first.ptr + 1, end, out.n) : first;
  if (!slash || second.ec != std::errc{} || second.ptr != end || out.n < 1 || out.n > kMostSweepItems || out.k < 1 ||
      out.k > out.n)
    throw core::Error(fmt::format("{} '{}': want k/n with k from 1 to n, such as 2/8", flag, text.substr(0, 60)));
  return out;
}

}  // namespace drydock::configurator
