#include "scheduler/scheduler.h"

namespace drydock::scheduler {

Policy vllm(int64_t max_num_batched_tokens, int64_t max_num_seqs) {
  Policy p;
  p.max_tokens = max_num_batched_tokens;
  p.max_sequences = max_num_seqs;
  return p;
}

Policy sglang(int64_t chunked_prefill_size, int64_t max_running_requests, double conservativeness) {
  constexpr double kFirstRatio = 0.7, kLastRatio = 0.7 * 0.14;
  constexpr int64_t kClip = 4096;
  Policy p;
  p.max_tokens = chunked_prefill_size;
  p.max_sequences = max_running_requests;
  p.mixes = false;
  p.reserve = conservativeness * (kFirstRatio + kLastRatio) / 2;
  p.reserve_most = kClip;
  p.reserves_own_output = true;
  return p;
}

Policy trtllm(int64_t max_num_tokens, int64_t max_batch_size, bool evicts, bool overlaps) {
  Policy p;
  p.max_tokens = max_num_tokens;
  p.max_sequences = max_batch_size;
  p.chunks = false;
  p.reserve = evicts ? 0 : 1;
  p.result_delay = overlaps ? 1 : 0;
  return p;
}

}  // namespace drydock::scheduler
