// Loops over rows of numbers, and the table of an instruction set; included by the file of each.

namespace drydock::kernels::cpu::DRYDOCK_ISA {
namespace {

void widen(const void* in, core::Dtype dtype, int64_t count, float scale, float* out) {
  with_format(dtype, [&](auto stored) {
    using Stored = decltype(stored);
    const auto* from = static_cast<const typename Stored::Element*>(in);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(out + i, load_as<Stored>(from + i) * scale);
    if (i < count) store_part(out + i, load_part<Stored>(from + i, count - i) * scale, count - i);
  });
}

template <typename Stored>
void narrow_as(const float* in, int64_t count, float divisor, typename Stored::Element* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, Stored::from_floats(load<Floats>(in + i) / divisor));
  if (i == count) return;
  const auto last = Stored::from_floats(load_part<StoredFloat>(in + i, count - i) / divisor);
  __builtin_memcpy(out + i, &last, static_cast<size_t>(count - i) * sizeof(*out));
}

void narrow(const float* in, int64_t count, float divisor, core::Dtype dtype, void* out) {
  if (dtype == core::Dtype::bf16) return narrow_as<StoredBf16>(in, count, divisor, static_cast<uint16_t*>(out));
  if (dtype == core::Dtype::fp8) return narrow_as<StoredFp8>(in, count, divisor, static_cast<uint8_t*>(out));
  auto* to = static_cast<float*>(out);
  for (int64_t i = 0; i < count; ++i) to[i] = in[i] / divisor;
}

// body(offset, vector count or 0, rest) over full vectors; the rest is done one number at a time by the callers'
// `last`.
template <typename Body, typename Last>
DRYDOCK_INLINE void each_vector(int64_t count, Body&& body, Last&& last) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i);
  if (i < count) last(i, count - i);
}

DRYDOCK_INLINE Floats rest(const float* x, int64_t count) { return load_part<StoredFloat>(x, count); }

void add(const float* x, int64_t count, float* sum) {
  for (int64_t i = 0; i < count; ++i) sum[i] += x[i];
}

void add_scaled(const float* x, float factor, int64_t count, float* sum) {
  each_vector(
      count, [&](int64_t i) { store(sum + i, load<Floats>(sum + i) + load<Floats>(x + i) * factor); },
      [&](int64_t i, int64_t n) { store_part(sum + i, rest(sum + i, n) + rest(x + i, n) * factor, n); });
}

void multiply_scaled(const float* x, const float* y, float factor, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] * factor * y[i];
}

DRYDOCK_INLINE Floats silu(Floats gate, Floats up) { return gate / (1.0F + exponential(-gate)) * up; }

void silu_multiply(const float* gate, const float* up, int64_t count, float* out) {
  each_vector(
      count, [&](int64_t i) { store(out + i, silu(load<Floats>(gate + i), load<Floats>(up + i))); },
      [&](int64_t i, int64_t n) { store_part(out + i, silu(rest(gate + i, n), rest(up + i, n)), n); });
}

float sum_squares(const float* x, int64_t count) {
  Floats sums[4] = {};
  const auto take = [&](int64_t i, Floats v) { sums[i / kLanes % 4] += v * v; };
  each_vector(
      count, [&](int64_t i) { take(i, load<Floats>(x + i)); }, [&](int64_t i, int64_t n) { take(i, rest(x + i, n)); });
  return lane_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

float largest_magnitude(const float* x, int64_t count) {
  Floats most{};
  const auto take = [&](Floats v) {
    const Floats size = as_floats(as_words(v) & 0x7FFFFFFFu);
    most = size > most ? size : most;
  };
  each_vector(
      count, [&](int64_t i) { take(load<Floats>(x + i)); }, [&](int64_t i, int64_t n) { take(rest(x + i, n)); });
  return lane_max(most);
}

float largest(const float* x, int64_t count) {
  Floats most = all(-__builtin_inff());
  float last = -__builtin_inff();
  each_vector(
      count,
      [&](int64_t i) {
        const Floats v = load<Floats>(x + i);
        most = v > most ? v : most;
      },
      [&](int64_t i, int64_t n) {
        for (int64_t j = i; j < i + n; ++j) last = x[j] > last ? x[j] : last;
      });
  const float whole = lane_max(most);
  return whole > last ? whole : last;
}

float exponentials(const float* x, float top, float factor, int64_t count, float* out) {
  Floats sum{};
  const auto value = [&](Floats v) {
    const Floats e = exponential((v - top) * factor);
    return v == v ? e : Floats{};
  };
  each_vector(
      count,
      [&](int64_t i) {
        const Floats e = value(load<Floats>(x + i));
        store(out + i, e);
        sum += e;
      },
      [&](int64_t i, int64_t n) {
        store_part(out + i, value(rest(x + i, n)), n);
        sum += rest(out + i, n);
      });
  return lane_sum(sum);
}

}  // namespace

const Isa& table() {
  static constexpr Isa kIsa = {DRYDOCK_ISA_NAME,
                               kTileRows,
                               kTileCols,
                               widen,
                               narrow,
                               pack,
                               multiply_tile<FloatTile>,
                               dots,
                               attend,
                               recur,
                               add,
                               add_scaled,
                               multiply_scaled,
                               silu_multiply,
                               sum_squares,
                               largest_magnitude,
                               largest,
                               exponentials};
  return kIsa;
}

}  // namespace drydock::kernels::cpu::DRYDOCK_ISA
