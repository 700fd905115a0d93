#pragma once
// All-reduce of the GPUs of one machine that see each other's memory (NVLink): for the messages of a decoding step,
// where a library's latency is most of the time.
#include <cstdint>

#include "core/dtype.h"
#include "kernels/cuda/stream.h"

namespace drydock::kernels::cuda {

inline constexpr int kMostPeers = 8;
inline constexpr int kPeerBlocks = 36;  // they wait for each other, so all must run at once

// In each GPU's memory, zeroed once. Barriers count upwards, so nothing is reset and launches can be replayed in
// graphs.
struct PeerSignals {
  uint32_t epochs[kPeerBlocks];               // barriers that this GPU's block has passed
  uint32_t arrived[kPeerBlocks][kMostPeers];  // the last barrier that block b of GPU p has come to
};

// The same on every GPU but for `rank`; addresses are those by which this GPU reaches them.
struct Peers {
  const void* inputs[kMostPeers] = {};  // what is summed: `count` numbers each
  void* parts[kMostPeers] = {};         // `count` numbers each; for two-shot only
  PeerSignals* signals[kMostPeers] = {};
  int rank = 0, ranks = 0;
};

// Whether each GPU should read everything from all others (one-shot: least latency) or sum up its share and then read
// the others' (two-shot: least bytes). The limits are those of vLLM's custom_all_reduce.cuh.
bool prefers_one_shot(int64_t bytes, int ranks);

// out (count) on every GPU = sum of all inputs, in fp32 and in the order of the ranks, so that all get the same bits.
// bf16 or fp32; addresses aligned to 16 bytes, `count` a multiple of 16 bytes. Every rank must launch it. When it has
// ended on a GPU, no other still reads that GPU's input. Asynchronous; throws core::Error on what it cannot do.
void peer_all_reduce(const Peers& peers, void* out, int64_t count, core::Dtype dtype, bool one_shot, Stream stream);

}  // namespace drydock::kernels::cuda
