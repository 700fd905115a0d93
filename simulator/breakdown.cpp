#include <algorithm>
#include <cmath>
#include <iterator>

#include "simulator/engine_state.h"

namespace drydock::simulator {
namespace {

bool same_row(const OpShare& row, const models::LayerOp& item) {
  return row.module == item.module && row.kind == item.op.kind && row.dtype == item.op.dtype;
}

OpShare& row_of(std::vector<OpShare>& rows, const models::LayerOp& item) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const OpShare& row) { return same_row(row, item); });
  if (found != rows.end()) return *found;
  rows.push_back({item.module, item.op.kind, item.op.dtype, 0, 0, core::Provenance::measured});
  return rows.back();
}

}  // namespace

// Ops of the middle of a sequence's life: a prompt not chunked, or one token at the mean context with
// the drafts that are verified beside it.
std::vector<models::LayerOp> Engine::Impl::typical_ops(const models::Workload& workload, models::Role phase,
                                                       double batch) const {
  const Lengths lengths = lengths_of(workload);
  const int ways = parallelism.attention_dp * (phase == models::Role::prefill ? 1 : parallelism.pp);
  const double per_rank = std::max(1.0, batch / ways);
  const models::BatchPart part =
      phase == models::Role::prefill
          ? models::BatchPart{per_rank, std::llround(lengths.fresh), std::llround(lengths.cached), true, false}
          : models::BatchPart{per_rank, options.decode_tokens(), std::llround(lengths.mean_context()), true, true};
  std::vector<models::LayerOp> all, stage_ops;
  for (int stage = 0; stage < parallelism.pp; ++stage) {
    timer.lowering().lower({&part, 1}, stage, stage_ops);
    std::copy(stage_ops.begin(), stage_ops.end(), std::back_inserter(all));
  }
  return all;
}

std::vector<OpShare> Engine::breakdown(const models::Workload& workload, models::Role phase, double batch) const {
  std::vector<OpShare> rows;
  double total = 0;
  for (const models::LayerOp& item : impl_->typical_ops(workload, phase, batch)) {
    const perfdb::KernelTime time = impl_->timer.times().of(item.op);
    OpShare& row = row_of(rows, item);
    const double us = item.count * impl_->timer.scale(item.op) * time.latency_us;
    row.us += us;
    row.provenance = std::max(row.provenance, time.provenance);
    total += us;
  }
  for (OpShare& row : rows) row.share = total > 0 ? row.us / total : 0;
  std::stable_sort(rows.begin(), rows.end(), [](const OpShare& a, const OpShare& b) { return a.us > b.us; });
  return rows;
}

std::array<double, core::kProvenances> Engine::provenance(const models::Workload& workload, models::Role phase,
                                                          double batch) const {
  std::array<double, core::kProvenances> shares{};
  for (const OpShare& row : breakdown(workload, phase, batch)) shares[static_cast<size_t>(row.provenance)] += row.share;
  return shares;
}

}  // namespace drydock::simulator
