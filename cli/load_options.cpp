#include "cli/load_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "core/text.h"
#include "simulator/arrivals.h"

namespace drydock::cli {
namespace {

using simulator::LengthDistribution;

constexpr int64_t kMostRequests = 1'000'000'000;
constexpr int64_t kTraceSample = 1000;  // requests that tell what is typical of a trace

simulator::TraceOptions trace_options(const LoadOptions& o) {
  simulator::TraceOptions trace;
  trace.path = o.trace;
  if (!o.format.empty()) trace.format = simulator::parse_trace_format(o.format, "--format");
  if (!o.speed.empty()) trace.speed = parse_positive(o.speed, "--speed", 1e6);
  trace.skip_bad = o.skip_bad;
  if (!o.requests.empty()) trace.most_requests = parse_count(o.requests, "--requests", kMostRequests);
  return trace;
}

double prefix_hit(const LoadOptions& o, double otherwise) {
  if (o.prefix_hit.empty()) return otherwise;
  return parse_share(o.prefix_hit, "--prefix-hit");
}

// Exactly one thing may say when requests come, and nothing may be given that it does not look at.
void check_conflicts(const LoadOptions& o) {
  std::vector<const char*> given;
  const auto note = [&](const std::string& text, const char* flag) {
    if (!text.empty()) given.push_back(flag);
  };
  note(o.rate, "--rate"), note(o.concurrency, "--concurrency"), note(o.trace, "--trace");
  note(o.sessions, "--sessions"), note(o.ramp, "--ramp");
  if (given.size() > 1) throw core::Error(fmt::format("{} and {}: give one of them", given[0], given[1]));
  const auto only_with = [](bool there, const std::string& text, const char* flag, const char* with) {
    if (!text.empty() && !there) throw core::Error(fmt::format("{}: goes with {}", flag, with));
  };
  only_with(!o.trace.empty(), o.format, "--format", "--trace");
  only_with(!o.trace.empty(), o.speed, "--speed", "--trace");
  only_with(!o.trace.empty(), o.skip_bad ? "yes" : "", "--skip-bad", "--trace");
  only_with(!o.rate.empty(), o.diurnal, "--diurnal", "--rate");
  const bool open = !o.rate.empty() || !o.ramp.empty();
  only_with(open || given.empty(), o.burstiness, "--burstiness", "--rate or --ramp");
  const auto not_with = [&](const std::string& other, const char* flag, const std::string& text, const char* why) {
    if (!other.empty() && !text.empty()) throw core::Error(fmt::format("{}: {}", flag, why));
  };
  not_with(o.trace, "--isl", o.isl, "a trace has its own lengths");
  not_with(o.trace, "--osl", o.osl, "a trace has its own lengths");
  not_with(o.trace, "--lengths", o.lengths, "a trace has its own lengths");
  not_with(o.sessions, "--requests", o.requests, "--sessions says how many conversations there are");
  not_with(o.sessions, "--until", o.until, "--sessions says how many conversations there are");
  not_with(o.trace, "--until", o.until, "a trace is replayed as it is");
  not_with(o.sessions, "--prefix-hit", o.prefix_hit, "conversations share what was said before");
  not_with(o.lengths, "--isl", o.isl, "--lengths says it already");
  not_with(o.lengths, "--osl", o.osl, "--lengths says it already");
}

int64_t median(std::vector<int64_t>& values) {
  const auto middle = values.begin() + static_cast<long>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Medians: one request that is far too long does not make a trace one of long requests.
models::Workload typical_of_trace(const LoadOptions& o, models::Workload w) {
  simulator::TraceOptions options = trace_options(o);
  options.most_requests = std::min(options.most_requests.value_or(kTraceSample), kTraceSample);
  const auto trace = simulator::open_trace(options);
  std::vector<int64_t> prompts, outputs;
  double last_us = 0;
  while (trace->next_us() != simulator::kNever) {
    const simulator::Arrival a = trace->take();
    prompts.push_back(a.prompt_tokens), outputs.push_back(a.output_tokens);
    last_us = a.at_us;
  }
  const auto count = static_cast<double>(prompts.size());
  w.isl = median(prompts), w.osl = median(outputs);
  w.shortest = w.longest = 1;
  w.prefix_hit = prefix_hit(o, 0);
  w.concurrency.reset();
  w.rate = count > 1 && last_us > 0 ? (count - 1) / (last_us * 1e-6) : 1;
  return w;
}

// "200,rate=2,turns=5,think=10s,system=1000,most=32768"
simulator::SessionOptions parse_sessions(const std::string& text) {
  simulator::SessionOptions out;
  const auto parts = split(text, ',');
  out.sessions = parse_count(parts.front(), "--sessions", 100'000'000);
  out.mean_turns = 4, out.mean_think_us = 10e6;
  for (size_t i = 1; i < parts.size(); ++i) {
    const size_t equals = parts[i].find('=');
    const std::string key = parts[i].substr(0, equals), flag = "--sessions " + key;
    const std::string value = equals == std::string::npos ? "" : parts[i].substr(equals + 1);
    if (key == "rate")
      out.sessions_per_s = parse_positive(value, flag, kMostRate);
    else if (key == "turns")
      out.mean_turns = std::max(1.0, parse_positive(value, flag, 1e6));
    else if (key == "think")
      out.mean_think_us = parse_span_us(value, flag);
    else if (key == "system")
      out.system_tokens = parse_whole(value, flag, simulator::kMostTokens);
    else if (key == "most")
      out.most_tokens = parse_count(value, flag, simulator::kMostTokens);
    else
      throw core::Error("--sessions '" + parts[i].substr(0, 60) +
                        "': want a number of sessions, then any of rate=, turns=, think=, system=, most=");
  }
  out.hash_tokens = models::kKvBlockTokens;
  return out;
}

simulator::RateProfile profile_of(const LoadOptions& o, double per_s) {
  simulator::RateProfile out;
  out.per_s = per_s;
  if (!o.ramp.empty()) {
    const auto parts = split(o.ramp, ':');
    if (parts.size() != 3)
      throw core::Error("--ramp '" + o.ramp.substr(0, 60) + "': want from:to:over, such as 2:20:300s");
    out.kind = simulator::RateProfile::Kind::ramp;
    out.per_s = parts[0] == "0" ? 0 : parse_positive(parts[0], "--ramp", kMostRate);
    out.end_per_s = parse_positive(parts[1], "--ramp", kMostRate);
    out.over_s = parse_span_us(parts[2], "--ramp", true) * 1e-6;
  } else if (!o.diurnal.empty()) {
    const auto parts = split(o.diurnal, ':');
    if (parts.size() != 2)
      throw core::Error("--diurnal '" + o.diurnal.substr(0, 60) + "': want amplitude:period, such as 0.5:24h");
    out.kind = simulator::RateProfile::Kind::diurnal;
    out.amplitude = parse_positive(parts[0], "--diurnal", 1);
    out.period_s = parse_span_us(parts[1], "--diurnal", true) * 1e-6;
  }
  return out;
}

LengthDistribution lengths_for(const LoadOptions& o, const models::Workload& w) {
  return o.lengths.empty() ? simulator::lengths_of(w) : LengthDistribution::parse(o.lengths, "--lengths");
}

std::string lengths_text(const LoadOptions& o, const models::Workload& w) {
  const std::string shared = w.prefix_hit > 0 ? fmt::format(", {} of the prompt shared", percent(w.prefix_hit)) : "";
  if (!o.lengths.empty()) return "lengths " + o.lengths + shared;
  return fmt::format("{} tokens in, {} out{}", w.isl, w.osl, shared);
}

constexpr int64_t kMostUntil = 1'000'000;  // requests, where only --until ends the run

// "2%" or "0.02".
double parse_precision(const std::string& text) {
  const bool in_percent = text.ends_with('%');
  const double value = parse_positive(in_percent ? text.substr(0, text.size() - 1) : text, "--until", 100);
  const double share = in_percent ? value / 100 : value;
  if (share > 0.5) throw core::Error("--until '" + text.substr(0, 60) + "': want at most 50%, such as 2%");
  return share;
}

// Requests, warm-up and end, as far as they are given.
struct Extent {
  std::optional<int64_t> requests;
  int64_t skip = 0;
  double most_us = simulator::kNever;
};

Extent extent_of(const LoadOptions& o, const models::Workload& w) {
  Extent out;
  if (!o.duration.empty()) out.most_us = parse_span_us(o.duration, "--duration");
  if (!o.requests.empty()) out.requests = parse_count(o.requests, "--requests", kMostRequests);
  if (!out.requests && o.duration.empty()) {
    out.requests = o.until.empty() ? simulator::requests_of(w, {}) : kMostUntil;
    out.skip = simulator::filling_of(w, {});
  }
  if (!o.warmup.empty()) out.skip = parse_whole(o.warmup, "--warmup", kMostRequests);
  if (out.requests) *out.requests += out.skip;
  return out;
}

void make_open(AskedLoad& out, const LoadOptions& o, const models::Workload& w, const Extent& extent) {
  simulator::OpenOptions open;
  open.rate = profile_of(o, w.rate.value_or(1));
  if (!o.burstiness.empty()) open.burstiness = parse_positive(o.burstiness, "--burstiness", 1e6);
  open.requests = extent.requests;
  if (extent.most_us < simulator::kNever) open.duration_us = extent.most_us;
  open.lengths = lengths_for(o, w);
  open.prefix = {w.prefix_hit, w.prefix_hit > 0 ? models::kKvBlockTokens : 0};
  out.expected_s =
      open.duration_us ? *open.duration_us * 1e-6 : open.rate.time_of(static_cast<double>(extent.requests.value_or(1)));
  const std::string rate = open.rate.kind == simulator::RateProfile::Kind::ramp ? "ramp " + o.ramp + " requests/s"
                           : !o.diurnal.empty() ? human(*w.rate) + " requests/s, by day " + o.diurnal
                                                : human(*w.rate) + " requests/s";
  out.text = rate + (o.burstiness.empty() ? ", Poisson" : ", burstiness " + o.burstiness) + ", " + lengths_text(o, w);
  out.make = [open](uint64_t seed) {
    simulator::OpenOptions seeded = open;
    seeded.seed = seed;
    return simulator::make_open_load(seeded);
  };
}

void make_closed(AskedLoad& out, const LoadOptions& o, const models::Workload& w, const Extent& extent,
                 const simulator::Deployment* d) {
  simulator::ClosedLoopOptions closed;
  closed.concurrency = std::llround(std::max(1.0, *w.concurrency));
  closed.prompts = extent.requests.value_or(kMostRequests);
  closed.warmup = 0;
  closed.connections = w.connections;
  closed.lengths = lengths_for(o, w);
  closed.uniform_gap = true;
  closed.prefix = {w.prefix_hit, w.prefix_hit > 0 ? models::kKvBlockTokens : 0};
  if (d) {
    if (!o.to_server) closed.gap_us = d->parts.front().engine->backend().request_ms * 1e3;
    const simulator::Part& last = d->parts.back();
    const double each = std::clamp(*w.concurrency / last.replicas, 1.0, static_cast<double>(last.max_batch));
    const double answer_us = last.engine->decode(w, each).tpot_ms.value * 1e3 * static_cast<double>(w.osl);
    if (!w.burst) closed.ramp_us = answer_us;  // as `recommend` has it: users come in over one answer's time
    out.expected_s = extent.requests ? static_cast<double>(*extent.requests) / each / last.replicas * answer_us * 1e-6
                                     : extent.most_us * 1e-6;
  }
  out.text = fmt::format("{} requests in flight, {}", closed.concurrency, lengths_text(o, w));
  out.make = [closed](uint64_t seed) {
    simulator::ClosedLoopOptions seeded = closed;
    seeded.seed = seed;
    return simulator::make_closed_loop(seeded);
  };
}

void make_sessions_load(AskedLoad& out, const LoadOptions& o, const models::Workload& w) {
  simulator::SessionOptions sessions = parse_sessions(o.sessions);
  sessions.lengths = lengths_for(o, w);
  out.expected_s = static_cast<double>(sessions.sessions) / sessions.sessions_per_s +
                   sessions.mean_turns * sessions.mean_think_us * 1e-6;
  out.text = fmt::format("{} conversations of {} turns, {} a second, {}", sessions.sessions, human(sessions.mean_turns),
                         human(sessions.sessions_per_s), lengths_text(o, w));
  out.make = [sessions](uint64_t seed) {
    simulator::SessionOptions seeded = sessions;
    seeded.seed = seed;
    return simulator::make_sessions(seeded);
  };
}

void make_trace(AskedLoad& out, const LoadOptions& o, const models::Workload& w) {
  simulator::TraceOptions trace = trace_options(o);
  trace.prefix = {w.prefix_hit, w.prefix_hit > 0 ? models::kKvBlockTokens : 0};
  out.text = fmt::format("trace {}{}", o.trace, trace.speed == 1 ? "" : fmt::format(" at {} x its speed", o.speed));
  out.make = [trace](uint64_t seed) -> std::unique_ptr<simulator::Load> {
    simulator::TraceOptions seeded = trace;
    seeded.seed = seed;
    return simulator::open_trace(seeded);
  };
}

}  // namespace

double parse_span_us(std::string_view text, std::string_view flag, bool bare_seconds) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  const double factor = unit == "us"                   ? 1
                        : unit == "ms"                 ? 1e3
                        : unit == "s"                  ? 1e6
                        : unit == "min"                ? 60e6
                        : unit == "h"                  ? 3600e6
                        : unit == "d"                  ? 86400e6
                        : unit.empty() && bare_seconds ? 1e6
                                                       : 0;
  constexpr double kMostUs = 1e15;
  if (status != std::errc{} || factor == 0 || !(value > 0 && value * factor <= kMostUs))
    throw core::Error(std::string(flag) + " '" + std::string(text.substr(0, 60)) +
                      "': want a time above 0 with its unit, such as 500ms, 30s, 2min or 1h");
  return value * factor;
}

int64_t parse_whole(const std::string& text, std::string_view flag, int64_t most) {
  if (text == "0") return 0;
  try {
    return parse_count(text, flag, most);
  } catch (const core::Error&) {
    throw core::Error(fmt::format("{} '{}': want a whole number from 0 to {}", flag, text.substr(0, 60), most));
  }
}

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> out;
  for (size_t start = 0;;) {
    const size_t end = text.find(at, start);
    out.emplace_back(text.substr(start, end - start));
    if (end == std::string_view::npos) return out;
    start = end + 1;
  }
}

models::Workload asked_workload(const LoadOptions& o, const models::Plan& plan) {
  check_conflicts(o);
  models::Workload w = plan.workload;
  if (!o.trace.empty()) return typical_of_trace(o, w);
  w.prefix_hit = prefix_hit(o, w.prefix_hit);
  if (!o.isl.empty()) w.isl = parse_count(o.isl, "--isl", simulator::kMostTokens);
  if (!o.osl.empty()) w.osl = parse_count(o.osl, "--osl", simulator::kMostTokens);
  if (!o.lengths.empty()) {
    const LengthDistribution lengths = LengthDistribution::parse(o.lengths, "--lengths");
    w.isl = std::llround(std::ceil(lengths.mean_prompt())), w.osl = std::llround(std::ceil(lengths.mean_output()));
    w.shortest = w.longest = 1;
  }
  if (!o.concurrency.empty())
    w.concurrency = static_cast<double>(parse_count(o.concurrency, "--concurrency", kMostInFlight)), w.rate.reset();
  if (!o.rate.empty()) w.rate = parse_positive(o.rate, "--rate", kMostRate, kLeastRate), w.concurrency.reset();
  if (!o.ramp.empty()) w.rate = profile_of(o, 1).end_per_s, w.concurrency.reset();
  if (!o.sessions.empty()) {
    const simulator::SessionOptions sessions = parse_sessions(o.sessions);
    w.rate = sessions.sessions_per_s * sessions.mean_turns, w.concurrency.reset(), w.prefix_hit = 0;
  }
  if (w.rate || w.concurrency) return w;
  double slots = 0;  // as much as it can take
  if (!plan.pools.empty()) slots = static_cast<double>(plan.pools.back().max_batch) * plan.pools.back().replicas;
  w.concurrency = std::max(1.0, slots);
  return w;
}

AskedLoad asked_load(const LoadOptions& o, const models::Plan& plan, const simulator::Deployment* deployment) {
  const models::Workload& w = plan.workload;
  AskedLoad out;
  if (!o.trace.empty() || !o.sessions.empty()) {
    if (!o.duration.empty()) out.most_us = parse_span_us(o.duration, "--duration");
    if (!o.warmup.empty()) out.skip = parse_whole(o.warmup, "--warmup", kMostRequests);
    if (!o.trace.empty())
      make_trace(out, o, w);
    else
      make_sessions_load(out, o, w);
    return out;
  }
  const Extent extent = extent_of(o, w);
  out.skip = extent.skip;
  out.most_us = extent.most_us;
  if (!o.until.empty()) out.precision = parse_precision(o.until);
  if (w.rate)
    make_open(out, o, w, extent);
  else
    make_closed(out, o, w, extent, deployment);
  return out;
}

models::Slo asked_slo(const LoadOptions& o, const models::Plan& plan) {
  models::Slo out = plan.slo;
  if (!(o.ttft + o.tpot + o.request_latency).empty()) out = {};
  out.percentile = plan.slo.percentile;
  if (!o.ttft.empty()) out.ttft_ms = parse_ms(o.ttft, "--ttft");
  if (!o.tpot.empty()) out.tpot_ms = parse_ms(o.tpot, "--tpot");
  if (!o.request_latency.empty()) out.request_latency_ms = parse_ms(o.request_latency, "--request-latency");
  if (o.percentile.empty()) return out;
  out.percentile.reset();
  if (o.percentile == "mean") return out;
  const std::string wants = "--percentile '" + o.percentile.substr(0, 60) + "': want mean, or p50 to p99.9 such as p95";
  double value = 0;
  const char *begin = o.percentile.data() + 1, *end = o.percentile.data() + o.percentile.size();
  const auto [stop, status] = std::from_chars(begin, end, value);
  if (o.percentile.front() != 'p' || status != std::errc{} || stop != end || !(value >= 50 && value <= 99.9))
    throw core::Error(wants);
  out.percentile = value;
  return out;
}

}  // namespace drydock::cli
