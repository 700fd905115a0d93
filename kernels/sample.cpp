#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/isa.h"
#include "kernels/operands.h"
#include "kernels/scratch.h"

namespace drydock::kernels::cpu {
namespace {

enum SampleScratch { kScaledLogits = 32, kChances };

// The k largest logits stay, of equals those of lowest index; the others' chances become 0.
void keep_largest(const float* logits, int64_t count, int64_t k, float* chances) {
  std::vector<float> sorted(logits, logits + count);
  std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<>());
  const float edge = sorted[k - 1];
  int64_t equals = k - std::count_if(logits, logits + count, [&](float x) { return x > edge; });
  for (int64_t i = 0; i < count; ++i)
    if (logits[i] < edge || (logits[i] == edge && equals-- <= 0)) chances[i] = 0;
}

// The smallest set whose chances reach top_p of them all stays.
void keep_nucleus(const float* logits, int64_t count, double top_p, float* chances) {
  double all = 0;
  int64_t kept = 0;
  for (int64_t i = 0; i < count; ++i) all += chances[i], kept += chances[i] > 0;
  // All below this together miss 1 - top_p, so that the set lies among the rest: few numbers to sort.
  const double least = 0.999 * (1 - top_p) * all / static_cast<double>(kept);
  std::vector<int32_t> order;
  for (int64_t i = 0; i < count; ++i)
    if (chances[i] > 0 && chances[i] >= least) order.push_back(static_cast<int32_t>(i));
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  std::vector<float> members;
  for (double reached = 0; members.size() < order.size() && reached < top_p * all; reached += members.back())
    members.push_back(chances[order[members.size()]]);
  std::fill(chances, chances + count, 0.0F);
  for (size_t i = 0; i < members.size(); ++i) chances[order[i]] = members[i];
}

int32_t draw(const float* chances, int64_t count, float uniform) {
  double all = 0, below = 0;
  for (int64_t i = 0; i < count; ++i) all += chances[i];
  int64_t token = 0;
  for (int64_t i = 0; i < count && below <= uniform * all; ++i) {
    if (chances[i] > 0) token = i;
    below += chances[i];
  }
  return static_cast<int32_t>(token);
}

int32_t sample_row(const Sample& op, int64_t r) {
  const int64_t count = op.logits.cols;
  float* logits = scratch<kScaledLogits>(count);
  widen_row(op.logits, r, logits);
  for (int64_t i = 0; i < count; ++i)
    if (std::isnan(logits[i])) logits[i] = -INFINITY;
  const float top = isa().largest(logits, count), temperature = op.temperatures[r];
  require(temperature >= 0 && op.top_k[r] >= 0 && op.top_p[r] > 0, "sample",
          "temperature and top_k have to be 0 or more, top_p above 0");
  if (temperature == 0 || std::isinf(top)) return static_cast<int32_t>(std::find(logits, logits + count, top) - logits);
  float* chances = scratch<kChances>(count);
  isa().exponentials(logits, top, std::min(1 / temperature, 1e30F), count, chances);
  if (op.top_k[r] > 0 && op.top_k[r] < count) keep_largest(logits, count, op.top_k[r], chances);
  if (op.top_p[r] < 1) keep_nucleus(logits, count, op.top_p[r], chances);
  return draw(chances, count, philox_uniform(op.seeds[r], op.counters[r]));
}

}  // namespace

void sample(const Sample& op, Threads& threads) {
  check(op.logits, "sample", "logits");
  require(op.logits.cols > 0, "sample", "logits need a column");
  threads.parallel_for(op.logits.rows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) op.tokens[r] = sample_row(op, r);
  });
}

}  // namespace drydock::kernels::cpu
