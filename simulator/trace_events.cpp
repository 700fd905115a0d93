#include "simulator/trace_events.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace drydock::simulator {
namespace {

using core::Json;

// Whole nanoseconds: enough for a viewer, and short.
double ns(double us) { return std::round(us * 1e3) / 1e3; }

Json metadata(const char* name, size_t pid, const std::string& value) {
  return {{"ph", "M"}, {"name", name}, {"pid", pid}, {"tid", 0}, {"args", {{"name", value}}}};
}

}  // namespace

bool TraceEvents::full() {
  left_out_ += kept_ >= most_;
  return kept_ >= most_;
}

void TraceEvents::add(const Json& event) {
  events_ += events_.empty() ? "\n" : ",\n";
  events_ += event.dump();
}

void TraceEvents::ran(int pool, int worker, const Run& run, int64_t prompt_tokens) {
  if (full()) return;
  ++kept_;
  const auto at = static_cast<size_t>(pool);
  if (workers_.size() <= at) workers_.resize(at + 1, 0);
  workers_[at] = std::max(workers_[at], worker + 1);
  const char* name = prompt_tokens == 0 ? "decode" : run.decodes > 0 ? "prefill + decode" : "prefill";
  add({{"ph", "X"},
       {"name", name},
       {"cat", "step"},
       {"pid", pool + 1},
       {"tid", worker + 1},
       {"ts", ns(run.start_us)},
       {"dur", ns(run.end_us() - run.start_us)},
       {"args", {{"steps", run.steps}, {"decoding", run.decodes}, {"prompt_tokens", prompt_tokens}}}});
}

void TraceEvents::phase(const char* name, double from_us, double to_us, int64_t id, const Json& arguments) {
  Json event = {{"ph", "b"}, {"name", name}, {"cat", "request"}, {"id", id}, {"pid", 0}, {"tid", 0}};
  event["ts"] = ns(from_us);
  if (!arguments.empty()) event["args"] = arguments;
  add(event);
  event.erase("args");
  event["ph"] = "e";
  event["ts"] = ns(to_us);
  add(event);
}

void TraceEvents::done(const RequestRecord& r) {
  if (full()) return;
  const int64_t id = ++requests_;
  kept_ += 4;
  const char* status = r.lost ? "lost" : r.rejected ? "rejected" : r.warmup ? "warm-up" : "ok";
  phase("request", r.arrival_us, r.last_us, id,
        {{"prompt_tokens", r.prompt_tokens},
         {"output_tokens", r.output_tokens},
         {"cached_tokens", r.cached_tokens},
         {"migrations", r.migrations},
         {"status", status}});
  if (r.lost || r.rejected || r.first_us < 0) return;
  const double started = std::max(r.arrival_us, r.started_us);
  kept_ += 4;
  phase("queue", r.arrival_us, started, id, {});
  phase("first token", started, std::max(started, r.first_us), id, {});
}

void TraceEvents::counters(const Timeline& timeline) {
  for (const Timeline::Sample& sample : timeline.samples())
    for (size_t p = 0; p < sample.pools.size(); ++p) {
      const PoolState& s = sample.pools[p];
      const double ts = ns(sample.at_us);
      add({{"ph", "C"},
           {"name", "requests"},
           {"pid", p + 1},
           {"ts", ts},
           {"args", {{"running", s.running}, {"waiting", s.waiting}}}});
      add({{"ph", "C"}, {"name", "KV share"}, {"pid", p + 1}, {"ts", ts}, {"args", {{"used", s.kv_share}}}});
      add({{"ph", "C"},
           {"name", "workers"},
           {"pid", p + 1},
           {"ts", ts},
           {"args", {{"alive", s.alive}, {"starting", s.starting}}}});
    }
}

std::string TraceEvents::json() const {
  std::string names = metadata("process_name", 0, "requests").dump();
  for (size_t p = 0; p < pools_.size(); ++p) {
    names += ",\n" + metadata("process_name", p + 1, pools_[p]).dump();
    for (int w = 0; p < workers_.size() && w < workers_[p]; ++w) {
      Json thread = metadata("thread_name", p + 1, fmt::format("{} {}", pools_[p], w));
      thread["tid"] = w + 1;
      names += ",\n" + thread.dump();
    }
  }
  const Json other = {{"left_out", left_out_}};
  return "{\"displayTimeUnit\": \"ms\",\n\"otherData\": " + other.dump() + ",\n\"traceEvents\": [\n" + names +
         (events_.empty() ? "" : ",") + events_ + "\n]}\n";
}

}  // namespace drydock::simulator
