#include "configurator/point_row.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/csv.h"
#include "core/error.h"
#include "core/file.h"

namespace drydock::configurator {
namespace {

using Cells = std::vector<std::string>;

constexpr const char* kPointSides[] = {"", "prefill_", "decode_"};

Cells point_names() {
  Cells out = {
      "mode", "model",       "system",        "backend",    "backend_version", "precision",      "kv_precision", "isl",
      "osl",  "concurrency", "length_spread", "prefix_hit", "stream_interval", "max_num_tokens", "max_batch"};
  for (const std::string side : kPointSides)
    for (const char* column : {"tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size", "num_workers"})
      out.push_back(side + column);
  for (const char* column : {"prefill_batch_size", "decode_batch_size", "ttft_ms", "tpot_ms", "ttft_p95_ms",
                             "tpot_p95_ms", "requests_per_s", "spec_doubt", "load"})
    out.emplace_back(column);
  return out;
}

std::string joined(const Cells& cells) {
  std::string out;
  for (const std::string& cell : cells) out += (out.empty() ? "" : ",") + core::csv_field(cell);
  return out + "\n";
}

std::string whole(double value) { return fmt::format("{:.0f}", value); }
std::string figure(double value) { return fmt::format("{:.4f}", value); }

void add_pool(Cells& out, const models::Pool* pool) {
  if (!pool) return out.insert(out.end(), 6, ""), void();
  const models::Parallelism& p = pool->parallelism;
  for (const int size : {p.tp, p.pp, p.attention_dp, p.moe_tp, p.ep, pool->replicas})
    out.push_back(std::to_string(size));
}

// Batches of points are those of one attention-DP rank.
std::string rank_batch(const models::Pool* pool) {
  return pool ? std::to_string(std::max<int64_t>(1, pool->max_batch / pool->parallelism.attention_dp)) : "";
}

}  // namespace

std::string point_columns() { return joined(point_names()); }

std::string point_row(const models::Plan& plan, const PointMeasurement& m) {
  for (const models::Pool& pool : plan.pools)
    if (pool.system != plan.pools.front().system)
      throw core::Error("--save: a row of points has one system; the plan's pools are on " + plan.pools.front().system +
                        " and " + pool.system);
  const models::Workload& w = plan.workload;
  const bool agg = plan.mode == models::Mode::agg;
  const models::Pool* worker = agg ? &plan.pools.front() : nullptr;
  const models::Pool* prefill = agg ? nullptr : &plan.pool(models::Role::prefill);
  const models::Pool* decode = agg ? nullptr : &plan.pool(models::Role::decode);
  // Points draw lengths from [1 - spread, 1] of the nominal ones.
  const double longest = m.closed_uniform ? w.longest : 1;
  const double spread = m.closed_uniform ? 1 - w.shortest / w.longest : 0;
  const double users = w.concurrency.value_or(std::max(1.0, m.in_flight));
  const int64_t budget = plan.pools.back().max_tokens;
  Cells out = {std::string(models::name(plan.mode)),
               plan.model,
               plan.pools.front().system,
               std::string(models::name(plan.backend)),
               plan.backend_version,
               plan.precision,
               plan.kv_precision,
               whole(static_cast<double>(w.isl) * longest),
               whole(static_cast<double>(w.osl) * longest),
               whole(users),
               figure(spread),
               figure(w.prefix_hit),
               std::to_string(w.stream_interval),
               budget > 0 ? std::to_string(budget) : "",
               rank_batch(worker)};
  for (const models::Pool* pool : {worker, prefill, decode}) add_pool(out, pool);
  out.insert(out.end(),
             {rank_batch(prefill), rank_batch(decode), figure(m.ttft_ms), figure(m.tpot_ms), figure(m.ttft_p95_ms),
              figure(m.tpot_p95_ms), figure(m.requests_per_s), m.closed_uniform ? "0" : "1", m.load});
  return joined(out);
}

void append_point(const std::filesystem::path& file, const std::string& row) {
  std::string content;
  if (std::filesystem::exists(file)) content = core::read_file(file);
  if (content.empty()) content = point_columns();
  if (core::Csv::parse(content, file.string()).columns() != point_names())
    throw core::Error(file.string() + ": has other columns than `bench --save` writes; name another file");
  if (!content.ends_with('\n')) content += '\n';
  core::write_file(file, content + row);
}

}  // namespace drydock::configurator
