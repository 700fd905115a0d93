#include "kernels/cuda/peer_all_reduce.h"
#include "profiler/cuda/launch.h"
#include "profiler/cuda/operands.h"

namespace drydock::profiler::cuda {
namespace {

using kernels::cuda::Peers;
using kernels::cuda::PeerSignals;

struct PeerTable {
  std::vector<std::shared_ptr<Memory>> memory;
  std::vector<Peers> peers;  // as each GPU sees them; one process has one address for all
  std::vector<void*> outputs;
};

bool reach_each_other(const std::vector<Lane>& lanes) {
  bool all = true;
  on_each(lanes, [&](size_t i) {
    for (size_t peer = 0; peer < lanes.size(); ++peer)
      if (peer != i) all = all && kernels::cuda::enable_peer(lanes[peer].device);
  });
  return all;
}

std::shared_ptr<PeerTable> peer_table(const std::vector<Lane>& lanes, int64_t l2_bytes, core::Dtype dtype,
                                      int64_t bytes) {
  const auto table = std::make_shared<PeerTable>();
  Peers all;
  all.ranks = static_cast<int>(lanes.size());
  for (size_t i = 0; i < lanes.size(); ++i) {
    Memory& memory = *table->memory.emplace_back(std::make_shared<Memory>(lanes[i], l2_bytes));
    all.inputs[i] = memory.random(dtype, bytes);
    all.parts[i] = memory.zeros(bytes);
    all.signals[i] = static_cast<PeerSignals*>(memory.zeros(sizeof(PeerSignals)));
    table->outputs.push_back(memory.zeros(bytes));
  }
  table->peers.assign(lanes.size(), all);
  for (size_t i = 0; i < lanes.size(); ++i) table->peers[i].rank = static_cast<int>(i);
  wait_for(lanes);  // a GPU that is first must find the signals of the others at zero
  return table;
}

}  // namespace

std::optional<Candidate> peer_all_reduce_candidate(const core::Op& op, Bench& bench) {
  constexpr int64_t kStep = 16;
  const int64_t bytes = op.shape[0], ranks = op.shape[1];
  if (ranks > kernels::cuda::kMostPeers || bytes == 0 || bytes % kStep != 0 || is_fp8(op.dtype)) return std::nullopt;
  const std::vector<Lane> lanes = bench.peers(ranks).lanes;
  if (!reach_each_other(lanes)) return std::nullopt;
  const auto table = peer_table(lanes, bench.gpu().l2_bytes, op.dtype, bytes);
  const bool one_shot = kernels::cuda::prefers_one_shot(bytes, static_cast<int>(ranks));
  Candidate one{one_shot ? "peer_all_reduce one-shot" : "peer_all_reduce two-shot", lanes, {}, 1, table};
  one.launch = [table, lanes, one_shot, dtype = op.dtype, count = bytes / width(op.dtype)](int64_t) {
    on_each(lanes, [&](size_t i) {
      kernels::cuda::peer_all_reduce(table->peers[i], table->outputs[i], count, dtype, one_shot, lanes[i].stream);
    });
  };
  return one;
}

}  // namespace drydock::profiler::cuda
