#include "cli/simulation_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/answer.h"

namespace drydock::cli {
namespace {

using core::Json;
using simulator::Distribution;
using simulator::Summary;

std::string share(double value) { return fmt::format("{:.1f}%", value * 100); }

std::string with_width(const Distribution& d) {
  return d.mean_half_width > 0 ? human(d.mean) + " +- " + human(d.mean_half_width) : human(d.mean);
}

std::string quantile_text(const Stage& stage) {
  return stage.targets.quantile ? fmt::format("p{:.4g}", *stage.targets.quantile * 100) : "the mean";
}

// "TTFT 812 of 1000 ms, TPOT 21.3 of 20 ms missed"
std::string targets_text(const Stage& stage, const Summary& s) {
  std::string out;
  const auto add = [&](const char* name, const std::optional<double>& target, double value) {
    if (!target) return;
    out += fmt::format("{}{} {} of {} ms{}", out.empty() ? "" : ", ", name, human(value), human(*target),
                       value > *target ? " MISSED" : "");
  };
  add("TTFT", stage.targets.ttft_ms, s.ttft_judged_ms);
  add("TPOT", stage.targets.tpot_ms, s.tpot_judged_ms);
  add("request", stage.targets.latency_ms, s.latency_judged_ms);
  return out;
}

void print_times(const Summary& s) {
  Table table({"ms", "mean +- 95%", "p50", "p90", "p95", "p99", "max"}, "lrrrrrr");
  const auto row = [&](const char* name, const Distribution& d) {
    table.row({name, with_width(d), human(d.p50), human(d.p90), human(d.p95), human(d.p99), human(d.most)});
  };
  row("TTFT", s.ttft_ms);
  row("TPOT", s.tpot_ms);
  row("ITL", s.itl_ms);
  row("request", s.latency_ms);
  row("queue", s.queue_ms);
  fmt::print("{}\n", table.text());
}

void print_pools(const Summary& s) {
  Table table({"pool", "workers", "in steps", "decoding", "KV mean", "KV peak"}, "lrrrrr");
  for (const auto& p : s.pools)
    table.row({p.name, human(p.workers), share(p.utilization), human(p.batch), share(p.kv_mean), share(p.kv_peak)});
  fmt::print("{}\n", table.text());
}

void print_counts(const Summary& s) {
  const std::pair<int64_t, const char*> counts[] = {{s.rejected, "rejected (longer than the KV cache)"},
                                                    {s.lost, "lost"},
                                                    {s.unfinished, "unfinished"},
                                                    {s.migrations, "moved to another worker"},
                                                    {s.replayed_tokens, "tokens replayed"},
                                                    {s.preemptions, "preemptions"},
                                                    {s.bad_lines, "bad lines passed over"}};
  std::string out;
  for (const auto& [count, what] : counts)
    if (count > 0) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", count, what);
  if (!out.empty()) fmt::print("{}\n", out);
}

Json slo_json(const models::Slo& slo) {
  Json out = Json::object();
  if (slo.ttft_ms) out["ttft_ms"] = *slo.ttft_ms;
  if (slo.tpot_ms) out["tpot_ms"] = *slo.tpot_ms;
  if (slo.request_latency_ms) out["request_latency_ms"] = *slo.request_latency_ms;
  if (slo.percentile) out["percentile"] = *slo.percentile;
  return out;
}

struct Tail {
  const char *name, *field;
  double Distribution::*figure;
  Distribution Summary::*of;
};
constexpr Tail kTails[] = {{"TTFT p95 ms", "ttft_p95_ms", &Distribution::p95, &Summary::ttft_ms},
                           {"TTFT p99 ms", "ttft_p99_ms", &Distribution::p99, &Summary::ttft_ms},
                           {"TPOT p95 ms", "tpot_p95_ms", &Distribution::p95, &Summary::tpot_ms},
                           {"TPOT p99 ms", "tpot_p99_ms", &Distribution::p99, &Summary::tpot_ms}};

// Rows of a comparison: how to read them, and whether less or more is better.
struct Row {
  const char* name;
  double (*value)(const Compared&);
  int better;  // -1: less, 1: more, 0: neither
};
const Row kRows[] = {
    {"GPUs", [](const Compared& c) { return c.summary.gpus; }, 0},
    {"TTFT mean ms", [](const Compared& c) { return c.summary.ttft_ms.mean; }, -1},
    {"TTFT p95 ms", [](const Compared& c) { return c.summary.ttft_ms.p95; }, -1},
    {"TTFT p99 ms", [](const Compared& c) { return c.summary.ttft_ms.p99; }, -1},
    {"TPOT mean ms", [](const Compared& c) { return c.summary.tpot_ms.mean; }, -1},
    {"TPOT p95 ms", [](const Compared& c) { return c.summary.tpot_ms.p95; }, -1},
    {"TPOT p99 ms", [](const Compared& c) { return c.summary.tpot_ms.p99; }, -1},
    {"ITL p99 ms", [](const Compared& c) { return c.summary.itl_ms.p99; }, -1},
    {"request p95 ms", [](const Compared& c) { return c.summary.latency_ms.p95; }, -1},
    {"queue p95 ms", [](const Compared& c) { return c.summary.queue_ms.p95; }, -1},
    {"requests/s", [](const Compared& c) { return c.summary.requests_per_s; }, 1},
    {"tokens/s/GPU", [](const Compared& c) { return c.summary.output_tokens_per_s_per_gpu; }, 1},
    {"goodput/s", [](const Compared& c) { return c.summary.goodput_per_s; }, 1},
    {"within targets %", [](const Compared& c) { return c.summary.good_share * 100; }, 1},
    {"rejected + lost", [](const Compared& c) { return static_cast<double>(c.summary.rejected + c.summary.lost); }, -1},
    {"GPU hours", [](const Compared& c) { return c.summary.gpu_hours; }, -1},
    {"kWh/Mtoken", [](const Compared& c) { return c.summary.kwh_per_million_tokens; }, -1},
    {"cost/Mtoken", [](const Compared& c) { return c.summary.cost_per_million_tokens.value_or(NAN); }, -1},
};

// What reads the same is equally good, and a row in which all do marks none.
std::vector<std::string> compared_row(const Row& row, const std::vector<Compared>& plans) {
  double best = NAN;
  size_t equal = 0;
  for (const Compared& plan : plans) {
    const double value = row.value(plan);
    if (std::isnan(best) || value * row.better > best * row.better) best = value;
  }
  for (const Compared& plan : plans) equal += human(row.value(plan)) == human(best);
  std::vector<std::string> cells = {row.name};
  for (const Compared& plan : plans) {
    const std::string value = human(row.value(plan));
    const bool marked = row.better != 0 && equal < plans.size() && value == human(best);
    cells.push_back(std::isnan(row.value(plan)) ? "-" : value + (marked ? "*" : " "));
  }
  return cells;
}

}  // namespace

std::string plan_text(const models::Plan& plan) {
  std::string pools;
  for (const models::Pool& pool : plan.pools) pools += (pools.empty() ? "" : " + ") + pool_text(pool);
  return fmt::format("{} {} on {}: {}, {} GPUs ({})", plan.model, plan.precision, models::name(plan.backend), pools,
                     plan.gpus(), plan.pools.front().system);
}

void print_stage(const Stage& stage, const Summary& s) {
  fmt::print("{}\n{}\n{} requests in {} s{}\n\n", plan_text(stage.plan), stage.load.text, s.requests,
             human(s.duration_s), s.replications > 1 ? fmt::format(", {} replications", s.replications) : "");
}

void print_summary(const Stage& stage, const Summary& s) {
  if (s.saturated) fmt::print("SATURATED: requests come faster than they are served; the queue grows to the end.\n\n");
  print_times(s);
  if (!s.precise)
    fmt::print("TTFT and TPOT are not known to {:.3g}% yet when the run ended.\n", stage.load.precision * 100);
  fmt::print("{} requests/s, {} output tokens/s, {} per GPU\n", human(s.requests_per_s), human(s.output_tokens_per_s),
             human(s.output_tokens_per_s_per_gpu));
  if (stage.targets.any())
    fmt::print("{} of the requests within all targets, goodput {} requests/s\nat {}: {}\n", share(s.good_share),
               human(s.goodput_per_s), quantile_text(stage), targets_text(stage, s));
  if (s.hit_rate > 0) fmt::print("{} of prompt tokens found in prefix caches\n", share(s.hit_rate));
  print_counts(s);
  fmt::print("{} kWh per million output tokens at most (board power while in steps)", human(s.kwh_per_million_tokens));
  if (s.cost_per_million_tokens) fmt::print(", cost {}", human(*s.cost_per_million_tokens));
  fmt::print("\n\n");
  print_pools(s);
}

void print_change(const Summary& without, const Summary& with) {
  Table table({"", "without", "with failures", "change"}, "lrrr");
  for (const Tail& tail : kTails) {
    const double a = without.*tail.of.*tail.figure, b = with.*tail.of.*tail.figure;
    table.row({tail.name, human(a), human(b), a > 0 ? fmt::format("{:+.0f}%", (b / a - 1) * 100) : "-"});
  }
  table.row({"within targets", share(without.good_share), share(with.good_share), ""});
  fmt::print("{}  {} requests lost, {} moved to another worker, {} tokens replayed\n\n", table.text(), with.lost,
             with.migrations, with.replayed_tokens);
}

Json stage_json(const Stage& stage, const Summary& s) {
  Json out = {{"plan", plan_text(stage.plan)},
              {"gpus_of_plan", stage.plan.gpus()},
              {"load", stage.load.text},
              {"seed", stage.seed},
              {"slo", slo_json(stage.plan.slo)}};
  out.update(simulator::summary_json(s));
  if (stage.load.precision > 0) out["until"] = {{"precision", stage.load.precision}, {"reached", s.precise}};
  if (stage.targets.any()) {
    const auto& t = stage.targets;
    const bool met = s.ttft_judged_ms <= t.ttft_ms.value_or(INFINITY) &&
                     s.tpot_judged_ms <= t.tpot_ms.value_or(INFINITY) &&
                     s.latency_judged_ms <= t.latency_ms.value_or(INFINITY);
    out["judged"] = {{"ttft_ms", s.ttft_judged_ms},
                     {"tpot_ms", s.tpot_judged_ms},
                     {"request_latency_ms", s.latency_judged_ms},
                     {"meets_slo", met}};
  }
  return out;
}

Json change_json(const Summary& without, const Summary& with) {
  Json out = Json::object();
  for (const Tail& tail : kTails) {
    const double a = without.*tail.of.*tail.figure, b = with.*tail.of.*tail.figure;
    out[tail.field] = {{"without", a}, {"with", b}};
    if (a > 0) out[tail.field]["change"] = b / a - 1;
  }
  out["good_share"] = {{"without", without.good_share}, {"with", with.good_share}};
  return out;
}

void print_compared(const std::vector<Compared>& plans) {
  std::vector<std::string> header = {""};
  for (const Compared& plan : plans) header.push_back(plan.name + " ");
  Table table(header, "l" + std::string(plans.size(), 'r'));
  const bool targets = plans.front().stage->targets.any();
  for (const Row& row : kRows) {
    const std::string name = row.name;
    if (!targets && (name == "goodput/s" || name == "within targets %")) continue;
    if (name == "cost/Mtoken" && !plans.front().summary.cost_per_million_tokens) continue;
    table.row(compared_row(row, plans));
  }
  fmt::print("{}  * best of its row\n", table.text());
  for (const Compared& plan : plans)
    if (plan.summary.saturated) fmt::print("{}: saturated, requests come faster than they are served\n", plan.name);
}

}  // namespace drydock::cli
