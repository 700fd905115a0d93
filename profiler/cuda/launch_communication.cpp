#include <algorithm>

#include "kernels/cuda/moe.h"
#include "profiler/cuda/experts.h"
#include "profiler/cuda/launch.h"
#include "profiler/cuda/operands.h"

namespace drydock::profiler::cuda {
namespace {

using core::Dtype;
using core::Op;
using core::OpKind;
using kernels::cuda::Communicator;

// Of one GPU.
struct Seat {
  std::shared_ptr<Memory> memory;
  void *in = nullptr, *out = nullptr;
};

struct Table {
  PeerGroup* group = nullptr;  // the bench's
  std::vector<Seat> seats;
};

std::shared_ptr<Table> table_for(PeerGroup& group, int64_t l2_bytes, Dtype dtype, int64_t in_bytes, int64_t out_bytes) {
  const auto table = std::make_shared<Table>();
  table->group = &group;
  for (const Lane& lane : group.lanes) {
    Seat seat{std::make_shared<Memory>(lane, l2_bytes)};
    seat.in = seat.memory->random(dtype, in_bytes);
    seat.out = seat.memory->zeros(out_bytes);
    table->seats.push_back(std::move(seat));
  }
  return table;
}

// What one rank does; `count` is in elements of the largest of its buffers.
void exchange(OpKind kind, Communicator& rank, const Seat& seat, int64_t count, Dtype dtype,
              kernels::cuda::Stream stream) {
  const int64_t part = std::max<int64_t>(count / rank.ranks(), 1);
  switch (kind) {
    case OpKind::all_reduce:
      return rank.all_reduce(seat.in, seat.out, count, dtype, stream);
    case OpKind::all_gather:
      return rank.all_gather(seat.in, seat.out, part, dtype, stream);
    case OpKind::reduce_scatter:
      return rank.reduce_scatter(seat.in, seat.out, part, dtype, stream);
    case OpKind::all_to_all:
      return rank.all_to_all(seat.in, seat.out, part, dtype, stream);
    default:  // send_recv, from the first to the last of its span
      if (rank.rank() == 0) rank.send(seat.in, count, dtype, rank.ranks() - 1, stream);
      if (rank.rank() == rank.ranks() - 1) rank.receive(seat.out, count, dtype, 0, stream);
  }
}

// Of one GPU that sends rows to experts, or gets them back.
struct ExpertSeat {
  std::shared_ptr<Memory> memory;
  kernels::Matrix tokens, packed, received;
  const int32_t *sources = nullptr, *row_count = nullptr, *rows = nullptr;
  const float* shares = nullptr;
  std::vector<int64_t> sent, back;  // elements, to and from each rank
};

struct ExpertTable {
  PeerGroup* group = nullptr;
  std::vector<ExpertSeat> seats;
};

ExpertSeat expert_seat(const Op& op, Dtype dtype, const std::vector<Exchange>& all, size_t rank, const Lane& lane,
                       int64_t l2_bytes) {
  const int64_t tokens = op.shape[0], hidden = op.shape[1], top_k = op.shape[2];
  const Exchange& own = all[rank];
  const bool combines = op.kind == OpKind::moe_combine;
  ExpertSeat seat;
  seat.memory = std::make_shared<Memory>(lane, l2_bytes);
  int64_t received = 0;
  for (size_t peer = 0; peer < all.size(); ++peer) {
    const int64_t out = own.tokens[peer] * hidden, in = all[peer].tokens[rank] * hidden;
    seat.sent.push_back(combines ? in : out);  // what came goes back
    seat.back.push_back(combines ? out : in);
    received += all[peer].tokens[rank];
  }
  const auto packed = static_cast<int64_t>(own.sources.size());
  seat.tokens = activations(*seat.memory, dtype, tokens, hidden);
  seat.packed = activations(*seat.memory, dtype, packed, hidden);
  seat.received = activations(*seat.memory, dtype, received, hidden);
  seat.sources = seat.memory->put(own.sources);
  seat.row_count = seat.memory->put(std::vector<int32_t>{static_cast<int32_t>(packed)});
  seat.rows = seat.memory->put(own.rows);
  seat.shares = seat.memory->put(std::vector<float>(own.rows.size(), 1.0F / static_cast<float>(top_k)));
  return seat;
}

// Packs rows and sends them: sources name tokens, one row each.
void dispatch(const ExpertSeat& seat, const Lane& lane) {
  kernels::cuda::gather({seat.tokens, seat.packed, seat.sources, seat.row_count, 1}, lane.stream);
}

void combine(const ExpertSeat& seat, const Lane& lane, int64_t top_k) {
  kernels::cuda::combine({seat.packed, seat.tokens, seat.rows, seat.shares, top_k}, lane.stream);
}

void run_experts(const ExpertTable& table, OpKind kind, Dtype dtype, int64_t top_k) {
  const std::vector<Lane>& lanes = table.group->lanes;
  const bool combines = kind == OpKind::moe_combine;
  if (!combines) on_each(lanes, [&](size_t i) { dispatch(table.seats[i], lanes[i]); });
  {
    const Communicator::Group group;
    on_each(lanes, [&](size_t i) {
      const ExpertSeat& seat = table.seats[i];
      table.group->communicators[i].all_to_all(combines ? seat.received.data : seat.packed.data, seat.sent,
                                               combines ? seat.packed.data : seat.received.data, seat.back, dtype,
                                               lanes[i].stream);
    });
  }
  if (combines) on_each(lanes, [&](size_t i) { combine(table.seats[i], lanes[i], top_k); });
}

}  // namespace

std::vector<Candidate> communication_candidates(const Op& op, Bench& bench) {
  PeerGroup& group = bench.peers(op.shape[1]);
  const Dtype dtype = stored(op.dtype);
  const int64_t bytes = std::max<int64_t>(op.shape[0], width(dtype) * op.shape[1]);
  const auto table = table_for(group, bench.gpu().l2_bytes, dtype, bytes, bytes);
  Candidate one{"nccl " + std::string(core::name(op.kind)), group.lanes, {}, 1, table};
  one.launch = [table, kind = op.kind, dtype, count = bytes / width(dtype)](int64_t) {
    const Communicator::Group together;
    on_each(table->group->lanes, [&](size_t i) {
      exchange(kind, table->group->communicators[i], table->seats[i], count, dtype, table->group->lanes[i].stream);
    });
  };
  std::vector<Candidate> out{std::move(one)};
  if (op.kind == OpKind::all_reduce)
    if (auto peers = peer_all_reduce_candidate(op, bench)) out.push_back(std::move(*peers));
  return out;
}

Candidate expert_exchange_candidate(const Op& op, Bench& bench) {
  const int64_t top_k = op.shape[2], experts = op.shape[3], ranks = op.shape[4];
  PeerGroup& group = bench.peers(ranks);
  // Answers of experts are summed in bf16.
  const Dtype dtype = op.kind == OpKind::moe_combine ? Dtype::bf16 : stored(op.dtype);
  std::vector<Exchange> all;
  for (int64_t rank = 0; rank < ranks; ++rank)
    all.push_back(exchange_of(random_experts(op.shape[0], top_k, experts, static_cast<uint64_t>(rank) + 11), top_k,
                              experts, rank, ranks));
  const auto table = std::make_shared<ExpertTable>();
  table->group = &group;
  for (size_t i = 0; i < all.size(); ++i)
    table->seats.push_back(expert_seat(op, dtype, all, i, group.lanes[i], bench.gpu().l2_bytes));
  const char* kernel = op.kind == OpKind::moe_combine ? "nccl all_to_all+combine" : "gather+nccl all_to_all";
  Candidate one{kernel, group.lanes, {}, 1, table};
  one.launch = [table, kind = op.kind, dtype, top_k](int64_t) { run_experts(*table, kind, dtype, top_k); };
  return one;
}

}  // namespace drydock::profiler::cuda
