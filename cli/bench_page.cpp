#include "cli/bench_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/command.h"
#include "cli/load_options.h"
#include "core/error.h"

namespace drydock::cli {
namespace {

using simulator::Distribution;
using simulator::Summary;

struct BenchFigure {
  const char *name, *field, *part;
  double (*of)(const Summary&);
};
constexpr BenchFigure kBenchFigures[] = {
    {"TTFT mean ms", "ttft_ms", "mean", [](const Summary& s) { return s.ttft_ms.mean; }},
    {"TTFT p50 ms", "ttft_ms", "p50", [](const Summary& s) { return s.ttft_ms.p50; }},
    {"TTFT p95 ms", "ttft_ms", "p95", [](const Summary& s) { return s.ttft_ms.p95; }},
    {"TTFT p99 ms", "ttft_ms", "p99", [](const Summary& s) { return s.ttft_ms.p99; }},
    {"TPOT mean ms", "tpot_ms", "mean", [](const Summary& s) { return s.tpot_ms.mean; }},
    {"TPOT p50 ms", "tpot_ms", "p50", [](const Summary& s) { return s.tpot_ms.p50; }},
    {"TPOT p95 ms", "tpot_ms", "p95", [](const Summary& s) { return s.tpot_ms.p95; }},
    {"TPOT p99 ms", "tpot_ms", "p99", [](const Summary& s) { return s.tpot_ms.p99; }},
    {"ITL mean ms", "itl_ms", "mean", [](const Summary& s) { return s.itl_ms.mean; }},
    {"ITL p99 ms", "itl_ms", "p99", [](const Summary& s) { return s.itl_ms.p99; }},
    {"request mean ms", "request_latency_ms", "mean", [](const Summary& s) { return s.latency_ms.mean; }},
    {"request p95 ms", "request_latency_ms", "p95", [](const Summary& s) { return s.latency_ms.p95; }},
    {"requests/s", "requests_per_s", "", [](const Summary& s) { return s.requests_per_s; }},
    {"output tokens/s", "output_tokens_per_s", "", [](const Summary& s) { return s.output_tokens_per_s; }},
    {"goodput/s", "goodput_per_s", "", [](const Summary& s) { return s.goodput_per_s; }},
};

// As `validate` has it: of the measured one, above 0 where too much was predicted.
double error_of(double measured, double predicted) { return measured > 0 ? predicted / measured - 1 : NAN; }

double late_quantile(const BenchPage& page, double q) {
  std::vector<double> copy = page.totals.late_ms;
  return simulator::quantile(copy, q);
}

void print_measured(const Summary& s) {
  Table table({"ms", "mean", "p50", "p90", "p95", "p99", "max"}, "lrrrrrr");
  const auto row = [&](const char* name, const Distribution& d) {
    table.row({name, human(d.mean), human(d.p50), human(d.p90), human(d.p95), human(d.p99), human(d.most)});
  };
  row("TTFT", s.ttft_ms);
  row("TPOT", s.tpot_ms);
  row("ITL", s.itl_ms);
  row("request", s.latency_ms);
  fmt::print("{}\n", table.text());
}

void print_predicted(const BenchPage& page) {
  Table table({"", "measured", "predicted", "error"}, "lrrr");
  for (const BenchFigure& f : kBenchFigures) {
    const double a = f.of(page.measured), b = f.of(*page.predicted);
    if (f.field == std::string_view("goodput_per_s") && !page.targets.any()) continue;
    const double error = error_of(a, b);
    table.row({f.name, human(a), human(b), std::isnan(error) ? "-" : fmt::format("{:+.1f}%", error * 100)});
  }
  fmt::print("\n{}  error: of the prediction, above 0 where it is too high\n", table.text());
}

void print_client(const BenchPage& page) {
  const runtime::BenchTotals& t = page.totals;
  for (const auto& [what, count] : t.errors) fmt::print("{} x {}\n", count, what);
  if (t.retried > 0) fmt::print("{} requests sent again after a refusal\n", t.retried);
  if (t.totals.unfinished > 0)
    fmt::print("{} requests were in flight at the end and don't count\n", t.totals.unfinished);
  if (t.wrong_lengths > 0) fmt::print("{} answers are not as long as asked\n", t.wrong_lengths);
  if (t.asked_prompt_tokens > 0 && t.prompt_tokens != t.asked_prompt_tokens)
    fmt::print("the server counts {:.2f} times the prompt tokens asked for\n",
               static_cast<double>(t.prompt_tokens) / static_cast<double>(t.asked_prompt_tokens));
  if (t.cached_tokens > 0)
    fmt::print("{} of prompt tokens found in prefix caches\n",
               percent(static_cast<double>(t.cached_tokens) / static_cast<double>(t.prompt_tokens)));
  fmt::print("client: at most {} streams, {} of a core, requests sent {} ms late (p99 {})\n", t.most_in_flight,
             percent(t.wall_s > 0 ? t.cpu_s / t.wall_s : 0), human(late_quantile(page, 0.5)),
             human(late_quantile(page, 0.99)));
}

double share_of(const std::string& text, const std::string& whole) {
  std::string number = text;
  if (!number.ends_with('%')) throw core::Error("--within '" + whole.substr(0, 60) + "': want 5% or ttft=15%,tpot=10%");
  number.pop_back();
  return parse_positive(number, "--within", 1000) / 100;
}

}  // namespace

Within parse_within(const std::string& text) {
  Within out;
  for (const std::string& part : split(text, ',')) {
    if (part == "mean")
      out.tails = false;
    else if (part.starts_with("ttft="))
      out.ttft = share_of(part.substr(5), text);
    else if (part.starts_with("tpot="))
      out.tpot = share_of(part.substr(5), text);
    else
      out.ttft = out.tpot = share_of(part, text);
  }
  return out;
}

std::vector<std::string> outside(const BenchPage& page, const Within& within) {
  std::vector<std::string> out;
  for (const BenchFigure& f : kBenchFigures) {
    const std::string_view field = f.field, part = f.part;
    if (part != "mean" && !(part == "p95" && within.tails)) continue;
    const double limit = field == "ttft_ms" ? within.ttft : field == "tpot_ms" ? within.tpot : 1e300;
    const double measured = f.of(page.measured), predicted = f.of(*page.predicted);
    const double error = error_of(measured, predicted);
    if (!(std::abs(error) <= limit) && limit < 1e300)
      out.push_back(fmt::format("{}: measured {}, predicted {}, {:+.1f}% is outside of {:.3g}%", f.name,
                                human(measured), human(predicted), error * 100, limit * 100));
  }
  return out;
}

void print_bench(const BenchPage& page) {
  const Summary& s = page.measured;
  fmt::print("{}\n{}\n{} requests in {} s{}\n\n", page.what, page.load, s.requests, human(s.duration_s),
             page.totals.end == runtime::BenchEnd::stopped ? ", stopped early"
             : page.totals.end == runtime::BenchEnd::gone  ? ", THEN THE SERVER WAS GONE"
                                                           : "");
  print_measured(s);
  fmt::print("{} requests/s, {} output tokens/s\n", human(s.requests_per_s), human(s.output_tokens_per_s));
  if (page.targets.any())
    fmt::print("{:.1f}% of the requests within all targets, goodput {} requests/s\n", s.good_share * 100,
               human(s.goodput_per_s));
  print_client(page);
  if (page.predicted) print_predicted(page);
}

core::Json bench_json(const BenchPage& page) {
  const Summary& s = page.measured;
  const runtime::BenchTotals& t = page.totals;
  core::Json errors = core::Json::object();
  for (const auto& [what, count] : t.errors) errors[what] = count;
  constexpr const char* kEnds[] = {"over", "stopped", "gone"};
  core::Json out = {{"server", page.what},
                    {"load", page.load},
                    {"seed", page.seed},
                    {"end", kEnds[static_cast<size_t>(t.end)]},
                    {"measured",
                     {{"requests", s.requests},
                      {"duration_s", s.duration_s},
                      {"ttft_ms", distribution_json(s.ttft_ms)},
                      {"tpot_ms", distribution_json(s.tpot_ms)},
                      {"itl_ms", distribution_json(s.itl_ms)},
                      {"request_latency_ms", distribution_json(s.latency_ms)},
                      {"requests_per_s", s.requests_per_s},
                      {"output_tokens_per_s", s.output_tokens_per_s},
                      {"goodput_per_s", s.goodput_per_s},
                      {"good_share", s.good_share},
                      {"prompt_tokens", s.prompt_tokens},
                      {"output_tokens", s.output_tokens},
                      {"lost", s.lost},
                      {"rejected", s.rejected},
                      {"unfinished", s.unfinished},
                      {"retried", t.retried},
                      {"wrong_lengths", t.wrong_lengths},
                      {"server_prompt_tokens", t.prompt_tokens},
                      {"server_cached_tokens", t.cached_tokens}}},
                    {"errors", errors},
                    {"client",
                     {{"cpu_s", t.cpu_s},
                      {"wall_s", t.wall_s},
                      {"chunks", t.chunks},
                      {"bytes", t.bytes},
                      {"most_in_flight", t.most_in_flight},
                      {"late_p50_ms", late_quantile(page, 0.5)},
                      {"late_p99_ms", late_quantile(page, 0.99)}}}};
  if (!page.predicted) return out;
  out["predicted"] = simulator::summary_json(*page.predicted);
  core::Json& error = out["error"] = core::Json::object();
  for (const BenchFigure& f : kBenchFigures) {
    const double e = error_of(f.of(s), f.of(*page.predicted));
    if (std::isnan(e)) continue;
    if (*f.part)
      error[f.field][f.part] = e;
    else
      error[f.field] = e;
  }
  return out;
}

}  // namespace drydock::cli
