// One tile of keys and values of attention; included by the file of each instruction set.

namespace drydock::kernels::cpu::DRYDOCK_ISA {
namespace {

// Logits of one query with the tile, -infinity where it does not see; returns the largest.
DRYDOCK_INLINE float tile_logits(const Attend& op, int64_t row) {
  const float* q = op.q + row * op.k_dim;
  Floats most = all(-__builtin_inff());
  Ints lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  for (int64_t t = 0; t < op.tokens; t += kLanes) {
    Floats sums[kLanes];
    for (int i = 0; i < kLanes; ++i) sums[i] = Floats{};
    for (int64_t d = 0; d < op.k_dim; d += kLanes) {
      const Floats x = load<Floats>(q + d);
      for (int i = 0; i < kLanes; ++i) sums[i] += x * load<Floats>(op.k + (t + i) * op.k_stride + d);
    }
    const Ints token = lane + static_cast<int32_t>(t);
    const Ints seen = (token >= op.first[row]) & (token < op.last[row]);
    const Floats logits = seen ? lane_sums(sums) * op.scale : all(-__builtin_inff());
    store(op.logits + t, logits);
    most = logits > most ? logits : most;
  }
  return lane_max(most);
}

// logits become exp(logit - top); returns their sum.
DRYDOCK_INLINE float tile_weights(const Attend& op, float top) {
  Floats sum{};
  for (int64_t t = 0; t < op.tokens; t += kLanes) {
    const Floats weights = exponential(load<Floats>(op.logits + t) - top);
    store(op.logits + t, weights);
    sum += weights;
  }
  return lane_sum(sum);
}

template <int kVectors>
DRYDOCK_INLINE void add_values(const Attend& op, int64_t row, int64_t d, float shrink) {
  Floats sums[kVectors];
  float* out = op.out + row * op.v_dim + d;
  for (int i = 0; i < kVectors; ++i) sums[i] = load<Floats>(out + i * kLanes) * shrink;
  const int64_t last = op.last[row] < op.tokens ? op.last[row] : op.tokens;
  for (int64_t t = op.first[row] > 0 ? op.first[row] : 0; t < last; ++t) {
    const Floats weight = all(op.logits[t]);
    for (int i = 0; i < kVectors; ++i) sums[i] += weight * load<Floats>(op.v + t * op.v_stride + d + i * kLanes);
  }
  for (int i = 0; i < kVectors; ++i) store(out + i * kLanes, sums[i]);
}

void attend(const Attend& op) {
  for (int64_t row = 0; row < op.rows; ++row) {
    if (op.last[row] <= 0 || op.first[row] >= op.last[row] || op.first[row] >= op.tokens) continue;
    const float most = tile_logits(op, row), old = op.top[row];
    const float top = most > old ? most : old;
    // A tile whose logits are all -infinity (or NaN) has no largest; it is passed on as 0 * infinity would be.
    const float shrink = old == top ? 1.0F : exponential(all(old - top))[0];
    op.sum[row] = op.sum[row] * shrink + tile_weights(op, top == -__builtin_inff() ? 0.0F : top);
    op.top[row] = top;
    int64_t d = 0;
    for (; d + 8 * kLanes <= op.v_dim; d += 8 * kLanes) add_values<8>(op, row, d, shrink);
    for (; d + 4 * kLanes <= op.v_dim; d += 4 * kLanes) add_values<4>(op, row, d, shrink);
    for (; d < op.v_dim; d += kLanes) add_values<1>(op, row, d, shrink);
  }
}

}  // namespace
}  // namespace drydock::kernels::cpu::DRYDOCK_ISA
