// models, systems and support: what is known.
#include "models/catalogue.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <set>

#include "cli/command.h"
#include "configurator/resources.h"
#include "core/error.h"
#include "models/config_layers.h"

namespace drydock::cli {
namespace {

std::string precision_text(const models::Precision& p) {
  std::string out{core::name(p.gemm)};
  if (p.moe != p.gemm) out += "/" + std::string(core::name(p.moe)) + " experts";
  return out;
}

// "128K", of 1024 tokens each, where it is whole.
std::string context_text(int64_t tokens) {
  return tokens % 1024 == 0 ? std::to_string(tokens / 1024) + "K" : std::to_string(tokens);
}

void list_models(const Context& context) {
  core::Json list = core::Json::array();
  Table table({"model", "family", "layers", "params", "active", "context", "published"}, "llrrrrl");
  for (const std::string& name : models::model_names()) {
    const models::Architecture a = models::find_model(name);
    const models::ParameterCount n = models::count_parameters(a);
    const std::string family = models::family_name(a);
    list.push_back({{"name", name},
                    {"family", family},
                    {"layers", a.layers()},
                    {"parameters", n.total},
                    {"active_parameters", n.active},
                    {"max_context", a.max_context},
                    {"precision", precision_text(a.precision)}});
    table.row({name.substr(name.find('/') + 1), family, std::to_string(a.layers()), human(n.total / 1e9) + "B",
               human(n.active / 1e9) + "B", context_text(a.max_context), precision_text(a.precision)});
  }
  if (context.json)
    print_json("drydock.models", {{"models", list}});
  else
    fmt::print(
        "{}\nAny config.json works too: --model FOLDER. Precision variants: --precision, or a name such as\n"
        "nvidia/DeepSeek-R1-NVFP4.\n",
        table.text(""));
}

void list_systems(const Context& context) {
  core::Json list = core::Json::array();
  Table table({"system", "memory", "TB/s", "bf16 TF/s", "fp8", "fp4", "NVLink GB/s", "domain", "node", "W"},
              "lrrrrrrrrr");
  for (const std::string& name : models::system_names()) {
    const models::System s = models::find_system(name);
    const core::Hardware& h = s.hardware;
    const auto rate = [&](core::Dtype d) { return h.flops_per_s[static_cast<size_t>(d)] / 1e12; };
    list.push_back({{"name", name},
                    {"gpu", s.gpu},
                    {"memory_bytes", s.memory_bytes},
                    {"memory_bytes_per_s", h.memory_bytes_per_s},
                    {"bf16_flops_per_s", rate(core::Dtype::bf16) * 1e12},
                    {"fp8_flops_per_s", rate(core::Dtype::fp8) * 1e12},
                    {"nvfp4_flops_per_s", rate(core::Dtype::nvfp4) * 1e12},
                    {"nvlink_bytes_per_s", h.nvlink_bytes_per_s},
                    {"nvlink_domain", h.nvlink_domain},
                    {"gpus_per_node", h.gpus_per_node},
                    {"gpus_per_rack", s.gpus_per_rack},
                    {"power_w", s.power_w},
                    {"source", s.source}});
    const auto or_dash = [](double v) { return v > 0 ? human(v) : std::string("-"); };
    table.row({name, human_bytes(s.memory_bytes), human(h.memory_bytes_per_s / 1e12), human(rate(core::Dtype::bf16)),
               or_dash(rate(core::Dtype::fp8)), or_dash(rate(core::Dtype::nvfp4)), or_dash(h.nvlink_bytes_per_s / 1e9),
               std::to_string(h.nvlink_domain), std::to_string(h.gpus_per_node), human(s.power_w)});
  }
  if (context.json)
    print_json("drydock.systems", {{"systems", list}});
  else
    fmt::print("{}\nDense datasheet rates. Your own: --system FILE.json, see docs/models.md.\n", table.text(""));
}

// What each system's kernel times rest on: surfaces of its own per backend, or whose are borrowed.
void list_support(Context& context) {
  configurator::Resources resources(context.database, context.calibration);
  std::map<std::pair<std::string, std::string>, std::pair<std::string, std::set<std::string>>> own;
  for (const auto& c : resources.database().contents())
    if (c.surfaces > 0 || c.measurements > 0) {
      auto& [version, kinds] = own[{c.system, c.backend}];
      version = std::max(version, c.version);
      kinds.insert(std::string(core::name(c.kind)));
    }
  core::Json list = core::Json::array();
  Table table({"system", "backend", "version", "ops with tables", "otherwise"}, "lllrl");
  for (const std::string& system : models::system_names())
    for (int b = 0; b < models::kBackends; ++b) {
      const auto backend = static_cast<models::Backend>(b);
      const perfdb::KernelTimes& times = resources.times(system, backend);
      const auto found = own.find({system, std::string(models::name(backend))});
      const size_t kinds = found == own.end() ? 0 : found->second.second.size();
      const std::string borrowed{times.borrowed_from()};
      core::Json ops = core::Json::array();
      if (kinds > 0)
        for (const std::string& kind : found->second.second) ops.push_back(kind);
      list.push_back({{"system", system},
                      {"backend", models::name(backend)},
                      {"version", times.version()},
                      {"ops", ops},
                      {"borrowed_from", borrowed}});
      table.row({system, std::string(models::name(backend)), std::string(times.version()), std::to_string(kinds),
                 borrowed.empty() ? (kinds > 0 ? "" : "analytic") : "borrowed from " + borrowed});
    }
  core::Json names = core::Json::array();
  for (const std::string& name : models::model_names()) names.push_back(name);
  if (context.json)
    print_json("drydock.support", {{"support", list}, {"models", names}});
  else
    fmt::print(
        "Every model of `drydock models` is priced on every system here; what differs is what its kernel\ntimes rest "
        "on.\n{}",
        table.text(""));
}

void add(CLI::App& app, Context& context, const char* name, const char* what, void (*action)(Context&)) {
  CLI::App* command = app.add_subcommand(name, what);
  add_common(*command, context);
  command->footer(std::string("Example:\n  drydock ") + name + " --json");
  command->callback([=, &context] { action(context); });
}

}  // namespace

void add_models(CLI::App& app, Context& context) {
  add(app, context, "models", "models that are known by name", [](Context& c) { list_models(c); });
}
void add_systems(CLI::App& app, Context& context) {
  add(app, context, "systems", "GPU systems that are known by name", [](Context& c) { list_systems(c); });
}
void add_support(CLI::App& app, Context& context) {
  add(app, context, "support", "what the kernel times of each system and backend rest on", list_support);
}

}  // namespace drydock::cli
