// The inner kernel of matrix products over packed tiles; included by the files that have such products.

namespace drydock::kernels::cpu::DRYDOCK_ISA {
namespace {

// c(kRows, Tile::kVectors * kLanes) = a^T b (+ c); a: (depth, Tile::kRows), b: (depth, Tile::kVectors * kLanes). `Tile`
// says what a step of the depth is: `factor`, one packed float of a in all lanes, and `add`, a sum plus its products.
template <typename Tile, int kRows>
void multiply_rows(int64_t depth, const float* a, const float* b, float* c, int64_t c_stride, bool add) {
  constexpr int kVectors = Tile::kVectors;
  Floats sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) sums[r][v] = Floats{};
  for (int64_t step = 0; step < depth; ++step, a += Tile::kRows, b += kVectors * kLanes) {
    Floats row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = load<Floats>(b + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Floats factor = Tile::factor(a + r);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Tile::add(sums[r][v], factor, row[v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      float* to = c + r * c_stride + v * kLanes;
      store(to, add ? load<Floats>(to) + sums[r][v] : sums[r][v]);
    }
  }
}

// The first `rows` <= Tile::kRows rows of it.
template <typename Tile, int kRows = Tile::kRows>
void multiply_tile(int64_t rows, int64_t depth, const float* a, const float* b, float* c, int64_t c_stride, bool add) {
  if constexpr (kRows > 1)
    if (rows < kRows) return multiply_tile<Tile, kRows - 1>(rows, depth, a, b, c, c_stride, add);
  multiply_rows<Tile, kRows>(depth, a, b, c, c_stride, add);
}

}  // namespace
}  // namespace drydock::kernels::cpu::DRYDOCK_ISA
