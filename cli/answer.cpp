#include "cli/answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/command.h"
#include "cli/front_plot.h"
#include "cli/terminal.h"
#include "core/csv.h"

namespace drydock::cli {
namespace {

using configurator::Answer;
using configurator::PoolDetail;
using configurator::Question;
using configurator::Ranked;
using core::Figure;
using core::Json;

std::string shapes(const models::Plan& plan) {
  std::string out;
  for (const models::Pool& pool : plan.pools) out += (out.empty() ? "" : " + ") + pool_text(pool);
  return out;
}

std::string limits(const models::Plan& plan) {
  std::string out;
  for (const models::Pool& pool : plan.pools) out += (out.empty() ? "" : "/") + std::to_string(pool.max_batch);
  return out;
}

// "812 (590..1120)"
std::string with_band(const Figure& f) {
  return fmt::format("{} ({}..{})", human(f.value), human(f.low), human(f.high));
}

// "p95", "p99.9"
std::string percentile_text(double percentile) { return fmt::format("p{:g}", percentile); }

std::string targets_text(const models::Slo& slo) {
  std::string out;
  const auto add = [&](const char* name, const std::optional<double>& ms) {
    if (ms) out += fmt::format("{}{} <= {} ms", out.empty() ? "" : ", ", name, human(*ms));
  };
  add("TTFT", slo.ttft_ms);
  add("TPOT", slo.tpot_ms);
  add("request", slo.request_latency_ms);
  if (out.empty()) return "no targets";
  return out + (slo.percentile ? " at " + percentile_text(*slo.percentile) : " in the mean");
}

std::string load_text(const models::Workload& w) {
  if (w.rate) return fmt::format("{} requests/s", human(*w.rate));
  if (w.concurrency) return fmt::format("{} requests in flight", human(*w.concurrency));
  return "as much load as it can take";
}

void print_head(const Question& q, const Answer& a, double wall_ms) {
  fmt::print("{} {} on up to {} x {}{}, {}\n", q.model, q.precision, q.gpus, q.system,
             q.decode_system.empty() ? "" : " + " + q.decode_system, targets_text(q.slo));
  fmt::print("{} tokens in, {} out, {:.0f}% of the prompt cached, {}\n", q.workload.isl, q.workload.osl,
             q.workload.prefix_hit * 100, load_text(q.workload));
  const auto& c = a.counts;
  fmt::print("{} candidates: {} illegal, {} out of memory, {} overloaded, {} priced\n", c.enumerated, c.illegal,
             c.out_of_memory, c.overloaded, c.priced);
  if (q.method == configurator::Method::simulate)
    fmt::print("{} simulated{}; ", c.simulated,
               c.beaten + c.implied > 0
                   ? fmt::format(" ({} beaten by a bound, {} by a neighbour in batch)", c.beaten, c.implied)
                   : "");
  fmt::print("{} meet the targets ({:.0f} ms)\n\n", c.meeting_slo, wall_ms);
}

void print_plans(const std::vector<Ranked>& plans) {
  const bool priced = !plans.empty() && plans.front().plan.prediction->cost_per_million_tokens;
  std::optional<models::Prediction::Tail> tail;
  if (!plans.empty()) tail = plans.front().plan.prediction->tail;
  const std::string at = tail ? " " + percentile_text(tail->percentile) : " ms";
  Table table({"#", "backend", "GPUs", "workers", "batch", "TTFT" + at, "TPOT" + at, "tok/s/user", "tok/s/GPU",
               priced ? "cost/Mtok" : "GPUh/Mtok"},
              "rlrllrrrrr");
  for (size_t i = 0; i < plans.size(); ++i) {
    const models::Plan& plan = plans[i].plan;
    const models::Prediction& p = *plan.prediction;
    const bool lone = plan.workload.osl == 1;  // answers of one token have no time between tokens
    const Figure& cost = priced ? *p.cost_per_million_tokens : p.gpu_hours_per_million_tokens;
    table.row({std::to_string(i + 1), std::string(models::name(plan.backend)), std::to_string(plan.gpus()),
               shapes(plan), limits(plan), human((p.tail ? p.tail->ttft_ms : p.ttft_ms).value),
               lone ? "-" : human((p.tail ? p.tail->tpot_ms : p.tpot_ms).value),
               lone ? "-" : human(p.tokens_per_s_per_user.value), human(p.tokens_per_s_per_gpu.value),
               human(cost.value)});
    if (plans[i].meets_slo && i == 0) table.style(Style::good);
  }
  fmt::print("{}\n", table.text());
}

// What each of Answer::nearest is nearest to.
std::vector<std::string> nearest_to(const models::Slo& slo) {
  std::vector<std::string> out = {"all"};
  if (slo.ttft_ms) out.push_back("ttft");
  if (slo.tpot_ms) out.push_back("tpot");
  if (slo.request_latency_ms) out.push_back("request_latency");
  return out;
}

void print_misses(const Question& q, const Answer& a) {
  if (a.nearest.empty()) {
    fmt::print("Nothing can run this: of {} candidates {} are illegal, {} do not fit, {} can't keep up.\n",
               a.counts.enumerated, a.counts.illegal, a.counts.out_of_memory, a.counts.overloaded);
    for (const auto& [reason, n] : a.counts.reasons) fmt::print("  {} x {}\n", n, reason);
    if (a.counts.overloaded > 0)
      fmt::print("More --gpus or less --rate would help.\n");
    else if (a.counts.out_of_memory > 0)
      fmt::print("More --gpus, a --system with more memory or a smaller --precision would help.\n");
    return;
  }
  fmt::print("{} The nearest plans:\n\n", styled(Style::bad, "Nothing meets the targets."));
  // One plan may be nearest to several.
  std::vector<Ranked> plans;
  std::vector<std::string> near;
  const auto names = nearest_to(q.slo);
  for (size_t i = 0; i < a.nearest.size() && i < names.size(); ++i) {
    const std::string name = i == 0 ? "all targets" : names[i];
    const auto same = std::find_if(plans.begin(), plans.end(), [&](const Ranked& shown) {
      return models::to_json(shown.plan) == models::to_json(a.nearest[i].plan);
    });
    if (same == plans.end()) {
      plans.push_back(a.nearest[i]);
      near.push_back(name);
    } else {
      near[static_cast<size_t>(same - plans.begin())] += ", " + name;
    }
  }
  print_plans(plans);
  for (size_t i = 0; i < plans.size(); ++i)
    fmt::print("  #{} is nearest to {}; {} binds: {} x its target\n", i + 1, near[i], plans[i].binding,
               human(plans[i].tightness));
}

Json pool_json(const models::Pool& pool) {
  const models::Parallelism& p = pool.parallelism;
  return {{"system", pool.system},
          {"tp", p.tp},
          {"pp", p.pp},
          {"ep", p.ep},
          {"moe_tp", p.moe_tp},
          {"attention_dp", p.attention_dp},
          {"gpus_per_worker", p.gpus()},
          {"replicas", pool.replicas},
          {"max_batch", pool.max_batch},
          {"max_tokens", pool.max_tokens},
          {"kv_blocks", pool.kv_blocks},
          {"two_batch_overlap", pool.two_batch_overlap},
          {"shared_expert_overlap", pool.shared_expert_overlap}};
}

Json experts_json(const models::Experts& experts) {
  Json out = Json::object();
  if (experts.skew) out["skew"] = *experts.skew;
  if (!experts.histogram.empty()) out["histogram"] = experts.histogram;
  if (experts.slots > 0) out["slots"] = experts.slots;
  return out;
}

Json ranked_json(const Ranked& ranked) {
  Json out = plan_json(ranked.plan);
  out["meets_slo"] = ranked.meets_slo;
  if (!ranked.binding.empty()) out["binding"] = {{"target", ranked.binding}, {"share_of_target", ranked.tightness}};
  return out;
}

Json ranked_list(const std::vector<Ranked>& list) {
  Json out = Json::array();
  for (const Ranked& r : list) out.push_back(ranked_json(r));
  return out;
}

template <typename T>
void put(Json& json, const char* field, const std::optional<T>& value) {
  if (value) json[field] = *value;
}

Json question_json(const Question& q) {
  using configurator::ModeChoice;
  Json out = {{"model", q.model},
              {"precision", q.precision},
              {"kv_precision", q.kv_precision},
              {"system", q.system},
              {"backend", q.backend ? models::name(*q.backend) : "auto"},
              {"mode", q.mode == ModeChoice::agg      ? "agg"
                       : q.mode == ModeChoice::disagg ? "disagg"
                                                      : "both"},
              {"method", q.method == configurator::Method::analytic ? "analytic" : "simulate"},
              {"gpus", q.gpus},
              {"isl", q.workload.isl},
              {"osl", q.workload.osl},
              {"prefix_hit", q.workload.prefix_hit}};
  if (!q.decode_system.empty()) out["decode_system"] = q.decode_system;
  if (!q.speculative.empty()) out["speculative"] = q.speculative;
  if (q.experts.uneven()) out["experts"] = experts_json(q.experts);
  put(out, "rate", q.workload.rate);
  put(out, "concurrency", q.workload.concurrency);
  put(out, "ttft_ms", q.slo.ttft_ms);
  put(out, "tpot_ms", q.slo.tpot_ms);
  put(out, "request_latency_ms", q.slo.request_latency_ms);
  put(out, "percentile", q.slo.percentile);
  return out;
}

}  // namespace

std::string pool_text(const models::Pool& pool) {
  const models::Parallelism& p = pool.parallelism;
  const char* role = pool.role == models::Role::prefill ? "P" : pool.role == models::Role::decode ? "D" : "";
  std::string out = fmt::format("{}{}x tp{}", role, pool.replicas, p.tp);
  if (p.pp > 1) out += fmt::format(" pp{}", p.pp);
  if (p.attention_dp > 1) out += fmt::format(" dp{}", p.attention_dp);
  if (p.ep > 1) out += fmt::format(" ep{}", p.ep);
  return out;
}

Json plan_json(const models::Plan& plan) {
  Json out = {{"mode", models::name(plan.mode)},
              {"backend", models::name(plan.backend)},
              {"backend_version", plan.backend_version},
              {"model", plan.model},
              {"precision", plan.precision},
              {"kv_precision", plan.kv_precision},
              {"gpus", plan.gpus()}};
  for (const models::Pool& pool : plan.pools) out[std::string(models::name(pool.role))] = pool_json(pool);
  if (!plan.speculative.empty()) out["speculative"] = plan.speculative;
  if (plan.experts.uneven()) out["experts"] = experts_json(plan.experts);
  const models::Prediction& p = *plan.prediction;
  out["ttft_ms"] = figure_json(p.ttft_ms);
  out["tpot_ms"] = figure_json(p.tpot_ms);
  out["request_latency_ms"] = figure_json(p.request_latency_ms);
  out["tokens_per_s_per_gpu"] = figure_json(p.tokens_per_s_per_gpu);
  out["tokens_per_s_per_user"] = figure_json(p.tokens_per_s_per_user);
  out["requests_per_s"] = figure_json(p.requests_per_s);
  out["gpu_hours_per_million_tokens"] = figure_json(p.gpu_hours_per_million_tokens);
  if (p.cost_per_million_tokens) out["cost_per_million_tokens"] = figure_json(*p.cost_per_million_tokens);
  if (p.tail)
    out["tail"] = {{"percentile", p.tail->percentile},
                   {"ttft_ms", figure_json(p.tail->ttft_ms)},
                   {"tpot_ms", figure_json(p.tail->tpot_ms)},
                   {"request_latency_ms", figure_json(p.tail->request_latency_ms)}};
  return out;
}

Json detail_json(const std::vector<PoolDetail>& pools) {
  Json out = Json::array();
  for (const PoolDetail& pool : pools) {
    Json ops = Json::array(), provenance = Json::object();
    for (const auto& op : pool.ops)
      ops.push_back({{"module", models::name(op.module)},
                     {"op", core::name(op.kind)},
                     {"dtype", core::name(op.dtype)},
                     {"us", op.us},
                     {"share", op.share},
                     {"provenance", core::name(op.provenance)}});
    for (int i = 0; i < core::kProvenances; ++i)
      provenance[std::string(core::name(static_cast<core::Provenance>(i)))] = pool.provenance[static_cast<size_t>(i)];
    const auto& m = pool.memory;
    out.push_back({{"role", models::name(pool.role)},
                   {"phase", models::name(pool.phase)},
                   {"batch", pool.batch},
                   {"kernel_version", pool.kernel_version},
                   {"borrowed_from", pool.borrowed_from},
                   {"provenance", provenance},
                   {"ops", ops},
                   {"memory_bytes",
                    {{"gpu", pool.memory_bytes},
                     {"weights", m.weights},
                     {"activations", m.activations},
                     {"communication", m.communication},
                     {"runtime", m.runtime}}},
                   {"kv_tokens_per_rank", pool.kv_tokens}});
    if (const auto& e = pool.experts)
      out.back()["experts"] = {{"slots", e->slots}, {"imbalance_before", e->before}, {"imbalance_after", e->after}};
  }
  return out;
}

Json answer_json(const Question& q, const Answer& a, configurator::Resources& resources, double wall_ms) {
  Json reasons = Json::object();
  for (const auto& [reason, n] : a.counts.reasons) reasons[reason] = n;
  const auto& c = a.counts;
  Json out = {{"question", question_json(q)}, {"plans", ranked_list(a.plans)}};
  if (a.plans.empty()) {
    const auto names = nearest_to(q.slo);
    out["nearest"] = ranked_list(a.nearest);
    for (size_t i = 0; i < a.nearest.size() && i < names.size(); ++i) out["nearest"][i]["nearest_to"] = names[i];
  }
  out["pareto"] = ranked_list(a.pareto);
  if (!a.plans.empty()) out["breakdown"] = detail_json(configurator::explain(a.plans.front().plan, resources));
  out["searched"] = {{"enumerated", c.enumerated}, {"illegal", c.illegal}, {"out_of_memory", c.out_of_memory},
                     {"overloaded", c.overloaded}, {"priced", c.priced},   {"meeting_slo", c.meeting_slo},
                     {"simulated", c.simulated},   {"beaten", c.beaten},   {"implied", c.implied},
                     {"reasons", reasons}};
  if (const auto warnings = cautions(q, resources); !warnings.empty()) out["warnings"] = warnings;
  out["wall_ms"] = wall_ms;
  return out;
}

void print_details(const std::vector<PoolDetail>& pools) {
  for (const PoolDetail& pool : pools) {
    fmt::print("One {} step of {} sequence{}{}:\n", models::name(pool.phase), human(pool.batch),
               pool.batch == 1 ? "" : "s",
               pool.role == models::Role::worker ? "" : fmt::format(" on a {} worker", models::name(pool.role)));
    Table table({"where", "op", "dtype", "us", "share", "rests on"}, "lllrrl");
    for (size_t i = 0; i < pool.ops.size() && i < 8; ++i) {
      const auto& op = pool.ops[i];
      table.row({std::string(models::name(op.module)), std::string(core::name(op.kind)),
                 std::string(core::name(op.dtype)), human(op.us), percent(op.share),
                 std::string(core::name(op.provenance))});
    }
    fmt::print("{}", table.text());
    std::string rests;
    for (int i = 0; i < core::kProvenances; ++i)
      if (const double share = pool.provenance[static_cast<size_t>(i)]; share >= 0.005)
        rests += fmt::format("{}{} {}", rests.empty() ? "" : ", ", percent(share),
                             core::name(static_cast<core::Provenance>(i)));
    fmt::print("  kernel time: {}{}{}\n", rests,
               pool.kernel_version.empty() ? "" : "; tables of version " + pool.kernel_version,
               pool.borrowed_from.empty() ? "" : "; efficiencies borrowed from " + pool.borrowed_from);
    const auto& m = pool.memory;
    if (const auto& e = pool.experts)
      fmt::print("  experts: imbalance (max - mean) / mean {} contiguous, {} in {} slots\n", human(e->before),
                 human(e->after), e->slots);
    fmt::print(
        "  memory of a GPU: {} weights, {} activations, {} buffers and runtime, of {}\n"
        "  KV cache: {:.0f} tokens a rank\n\n",
        human_bytes(m.weights), human_bytes(m.activations), human_bytes(m.communication + m.runtime),
        human_bytes(pool.memory_bytes), pool.kv_tokens);
  }
}

void print_answer(const Question& q, const Answer& a, configurator::Resources& resources, double wall_ms,
                  const std::string& out_dir) {
  for (const std::string& warning : cautions(q, resources))
    fmt::print("{} {}\n", styled(Style::bad, "warning:"), warning);
  print_head(q, a, wall_ms);
  if (a.plans.empty()) return print_misses(q, a);
  print_plans(a.plans);
  const Ranked& first = a.plans.front();
  const models::Prediction& p = *first.plan.prediction;
  fmt::print("#1 in 80% bands: {} tokens/s/GPU\n  mean: TTFT {} ms, TPOT {} ms\n", with_band(p.tokens_per_s_per_gpu),
             with_band(p.ttft_ms), with_band(p.tpot_ms));
  if (p.tail)
    fmt::print("  {}:  TTFT {} ms, TPOT {} ms\n", percentile_text(p.tail->percentile), with_band(p.tail->ttft_ms),
               with_band(p.tail->tpot_ms));
  if (!first.binding.empty())
    fmt::print("The target that binds is {}: {} of it is used.\n", first.binding, percent(first.tightness));
  fmt::print("\n");
  if (const std::string picture = front_text(a.pareto, a.plans); !picture.empty()) fmt::print("{}\n", picture);
  print_details(configurator::explain(first.plan, resources));
  if (out_dir.empty())
    fmt::print("--out DIR writes the plans and the runtime's configuration.\n");
  else
    fmt::print(
        "Written to {}: plan.json (#1), plans/1.json.., pareto.csv, runtime.json\nNext: drydock estimate --plan "
        "{}/plan.json\n",
        out_dir, out_dir);
}

std::string pareto_csv(const std::vector<Ranked>& front) {
  std::string out =
      "tokens_per_s_per_user,tokens_per_s_per_gpu,ttft_ms,tpot_ms,meets_slo,backend,mode,gpus,workers,max_batch\n";
  for (const Ranked& r : front) {
    const models::Prediction& p = *r.plan.prediction;
    out += fmt::format("{:.4f},{:.4f},{:.4f},{:.4f},{},{},{},{},{},{}\n", p.tokens_per_s_per_user.value,
                       p.tokens_per_s_per_gpu.value, p.ttft_ms.value, p.tpot_ms.value, r.meets_slo ? 1 : 0,
                       models::name(r.plan.backend), models::name(r.plan.mode), r.plan.gpus(),
                       core::csv_field(shapes(r.plan)), core::csv_field(limits(r.plan)));
  }
  return out;
}

}  // namespace drydock::cli
