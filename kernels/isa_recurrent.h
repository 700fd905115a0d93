// The state of one head of a recurrent mixer, token after token; included by the file of each instruction set.

namespace drydock::kernels::cpu::DRYDOCK_ISA {
namespace {

// Sums along the rows of a state, even and odd ones apart: one chain would wait for its additions.
template <int kVectors>
struct RowSums {
  Floats parts[2][kVectors];
  DRYDOCK_INLINE RowSums() {
    for (int v = 0; v < kVectors; ++v) parts[0][v] = parts[1][v] = Floats{};
  }
  DRYDOCK_INLINE Floats whole(int v) const { return parts[0][v] + parts[1][v]; }
};

// body(row, chain) for all rows, two at a time.
template <typename Body>
DRYDOCK_INLINE void each_row(int64_t rows, Body&& body) {
  int64_t i = 0;
  for (; i + 2 <= rows; i += 2) {
    body(i, 0);
    body(i + 1, 1);
  }
  if (i < rows) body(i, 0);
}

// Columns [column, column + kVectors * kLanes), which stand at `state`, rows `stride` apart, for all tokens.
template <int kVectors>
DRYDOCK_INLINE void recur_columns(const Recur& op, int64_t column, float* state, int64_t stride) {
  for (int64_t t = 0; t < op.tokens; ++t) {
    const float* k = op.k + t * op.k_dim;
    const float* q = op.q + t * op.k_dim;
    RowSums<kVectors> held, sums;
    Floats change[kVectors];
    if (op.delta)
      each_row(
          op.k_dim, [&](int64_t i, int chain) __attribute__((always_inline)) {
            for (int v = 0; v < kVectors; ++v)
              held.parts[chain][v] += load<Floats>(state + i * stride + v * kLanes) * k[i];
          });
    for (int v = 0; v < kVectors; ++v)
      change[v] =
          (load<Floats>(op.v + t * op.v_stride + column + v * kLanes) - held.whole(v) * op.decay[t]) * op.gain[t];
    each_row(
        op.k_dim, [&](int64_t i, int chain) __attribute__((always_inline)) {
          for (int v = 0; v < kVectors; ++v) {
            const Floats next = load<Floats>(state + i * stride + v * kLanes) * op.decay[t] + change[v] * k[i];
            store(state + i * stride + v * kLanes, next);
            sums.parts[chain][v] += next * q[i];
          }
        });
    for (int v = 0; v < kVectors; ++v) store(op.out + t * op.v_stride + column + v * kLanes, sums.whole(v));
  }
}

// Over several tokens in `block`, where neighbouring rows lie together: a power of two apart they would share few lines
// of the first cache.
template <int kVectors>
void recur_block(const Recur& op, int64_t column) {
  constexpr int64_t kWidth = kVectors * kLanes, kFewTokens = 4;
  float* state = op.state + column;
  if (op.tokens < kFewTokens) return recur_columns<kVectors>(op, column, state, op.state_stride);
  for (int64_t i = 0; i < op.k_dim; ++i)
    for (int v = 0; v < kVectors; ++v)
      store(op.block + i * kWidth + v * kLanes, load<Floats>(state + i * op.state_stride + v * kLanes));
  recur_columns<kVectors>(op, column, op.block, kWidth);
  for (int64_t i = 0; i < op.k_dim; ++i)
    for (int v = 0; v < kVectors; ++v)
      store(state + i * op.state_stride + v * kLanes, load<Floats>(op.block + i * kWidth + v * kLanes));
}

// One column.
void recur_column(const Recur& op, int64_t column) {
  for (int64_t t = 0; t < op.tokens; ++t) {
    float* state = op.state + column;
    float held = 0, sum = 0;
    for (int64_t i = 0; op.delta && i < op.k_dim; ++i) held += state[i * op.state_stride] * op.k[t * op.k_dim + i];
    const float change = (op.v[t * op.v_stride + column] - held * op.decay[t]) * op.gain[t];
    for (int64_t i = 0; i < op.k_dim; ++i, state += op.state_stride) {
      *state = *state * op.decay[t] + change * op.k[t * op.k_dim + i];
      sum += *state * op.q[t * op.k_dim + i];
    }
    op.out[t * op.v_stride + column] = sum;
  }
}

void recur(const Recur& op) {
  int64_t column = 0;
  for (; column + 2 * kLanes <= op.v_dim; column += 2 * kLanes) recur_block<2>(op, column);
  for (; column + kLanes <= op.v_dim; column += kLanes) recur_block<1>(op, column);
  for (; column < op.v_dim; ++column) recur_column(op, column);
}

}  // namespace
}  // namespace drydock::kernels::cpu::DRYDOCK_ISA
