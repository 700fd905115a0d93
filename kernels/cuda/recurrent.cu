#include <cmath>
#include <string>

#include "core/error.h"
#include "kernels/cuda/attention_check.h"
#include "kernels/cuda/eight.h"
#include "kernels/cuda/recurrent.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kAtOnce = 16;  // tokens whose operands are in shared memory
constexpr int kGroups = 4;   // of lanes, that share the rows of a state
constexpr int kAcross = kWarp / kGroups;

// Where the operands of a mixer are; row of `x`: one token.
struct Arguments {
  const Bf16* x = nullptr;
  int64_t x_stride = 0;                  // elements
  int64_t q_at = 0, k_at = 0, v_at = 0;  // first elements of the first heads in a row
  const Bf16* first_gate = nullptr;      // a of the delta rule, dt of Mamba-2
  const Bf16* second_gate = nullptr;     // b; null: Mamba-2
  int64_t gate_stride = 0;
  const float* a_log = nullptr;
  const float* dt_bias = nullptr;
  const float* skip = nullptr;  // null: the delta rule
  float* states = nullptr;
  const int32_t* slots = nullptr;
  Bf16* out = nullptr;
  const int32_t* starts = nullptr;
  int heads = 0, sharers = 1;  // heads that have a key in common
  int v_dim = 0;
  float q_scale = 1;
};

// What a block has in shared memory. Numbers as they come from global memory lie apart from those in use, so that the
// next tokens' can be under way.
template <int kKeys, int kColumns>
struct Layout {
  static constexpr int kBlockColumns = kWarps * kAcross * kColumns;
  static constexpr int kKeyBytes = kKeys * 2, kValueBytes = kBlockColumns * 2;
  static constexpr int kRawBytes = kAtOnce * (2 * kKeyBytes + kValueBytes);
  // The groups of lanes read their rows of a key at once: four floats between them keep these in different banks.
  static constexpr int kRows = kKeys / kGroups, kGroupStride = kRows + 4, kKeyStride = kGroups * kGroupStride;
  static constexpr int kKeysAt = kRawBytes;                                 // (tokens, kKeyStride) floats, then queries
  static constexpr int kValuesAt = kKeysAt + 2 * kAtOnce * kKeyStride * 4;  // (tokens, columns) floats
  static constexpr int kGatesAt = kValuesAt + kAtOnce * kBlockColumns * 4;  // (tokens) decays, then gains
  static constexpr int kSharedBytes = kGatesAt + 2 * kAtOnce * 4;
};

__device__ __forceinline__ float softplus(float x) { return x > 20 ? x : log1pf(expf(x)); }

template <int kKeys, int kColumns>
class Tokens {
  using L = Layout<kKeys, kColumns>;

 public:
  __device__ Tokens(const Arguments& args, unsigned char* shared, int head, int first_column)
      : args_(args),
        shared_(shared),
        head_(head),
        q_(args.x + args.q_at + static_cast<int64_t>(head / args.sharers) * kKeys),
        k_(args.x + args.k_at + static_cast<int64_t>(head / args.sharers) * kKeys),
        v_(args.x + args.v_at + static_cast<int64_t>(head) * args.v_dim + first_column) {}

  // Starts the copies of tokens [first, first + count).
  __device__ __forceinline__ void fetch(int64_t first, int count) const {
    copy<L::kKeyBytes>(k_, first, count, shared_);
    copy<L::kKeyBytes>(q_, first, count, shared_ + kAtOnce * L::kKeyBytes);
    copy<L::kValueBytes>(v_, first, count, shared_ + 2 * kAtOnce * L::kKeyBytes);
    copy_async_commit();
  }

  // What has come becomes fp32, keys and queries of the delta rule of unit length; between two barriers.
  template <bool kDelta>
  __device__ __forceinline__ void convert(int64_t first, int count) const {
    widen_keys<kDelta>(shared_, keys(), count, 1);
    widen_keys<kDelta>(shared_ + kAtOnce * L::kKeyBytes, queries(), count, args_.q_scale);
    const auto* const raw = reinterpret_cast<const Bf16*>(shared_ + 2 * kAtOnce * L::kKeyBytes);
    for (int i = static_cast<int>(threadIdx.x) * 8; i < count * L::kBlockColumns; i += kThreads * 8) {
      const Eight eight = load_eight(raw + i);
#pragma unroll
      for (int j = 0; j < 8; ++j) values()[i + j] = eight.values[j];
    }
    const int t = static_cast<int>(threadIdx.x);
    if (t >= count) return;
    const int64_t gate = (first + t) * args_.gate_stride + head_;
    const float step = softplus(to_float(args_.first_gate[gate]) + args_.dt_bias[head_]);
    decays()[t] = expf(-expf(args_.a_log[head_]) * step);
    gains()[t] = kDelta ? 1 / (1 + expf(-to_float(args_.second_gate[gate]))) : step;
  }

  __device__ __forceinline__ float* keys() const { return reinterpret_cast<float*>(shared_ + L::kKeysAt); }
  __device__ __forceinline__ float* queries() const { return keys() + kAtOnce * L::kKeyStride; }
  __device__ __forceinline__ float* values() const { return reinterpret_cast<float*>(shared_ + L::kValuesAt); }
  __device__ __forceinline__ float* decays() const { return reinterpret_cast<float*>(shared_ + L::kGatesAt); }
  __device__ __forceinline__ float* gains() const { return decays() + kAtOnce; }

 private:
  template <int kBytes>
  __device__ __forceinline__ void copy(const Bf16* from, int64_t first, int count, unsigned char* to) const {
    constexpr int kChunks = kBytes / 16;
    for (int i = static_cast<int>(threadIdx.x); i < count * kChunks; i += kThreads)
      copy_async_16(to + i * 16, from + (first + i / kChunks) * args_.x_stride + i % kChunks * 8);
  }

  // Eight lanes a token.
  template <bool kUnit>
  __device__ __forceinline__ void widen_keys(const unsigned char* raw, float* to, int count, float scale) const {
    constexpr int kLanes = 8, kPieces = kKeys / 8 / kLanes;
    const int thread = static_cast<int>(threadIdx.x), t = thread / kLanes;
    static_assert(kAtOnce == kThreads / kLanes && kPieces >= 1);
    Eight pieces[kPieces] = {};
    float squares = 0;
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      if (t < count)
        pieces[p] = load_eight(reinterpret_cast<const Bf16*>(raw) + t * kKeys + (p * kLanes + thread % kLanes) * 8);
#pragma unroll
      for (int j = 0; j < 8; ++j) squares += pieces[p].values[j] * pieces[p].values[j];
    }
    const float factor = kUnit ? scale * reciprocal_sqrt(warp_sum<kLanes>(squares) + 1e-6F) : scale;
    if (t >= count) return;
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const int row = (p * kLanes + thread % kLanes) * 8;
      float* const at = to + t * L::kKeyStride + row / L::kRows * L::kGroupStride + row % L::kRows;
#pragma unroll
      for (int j = 0; j < 8; ++j) at[j] = pieces[p].values[j] * factor;
    }
  }

  const Arguments& args_;
  unsigned char* shared_;
  int head_;
  const Bf16 *q_, *k_, *v_;
};

// Sum over the groups of lanes, given to all of them.
__device__ __forceinline__ float group_sum(float x) {
  x += shuffle_xor(x, kAcross);
  return x + shuffle_xor(x, 2 * kAcross);
}

// A lane's part of a state: rows [group kRows, (group + 1) kRows), kColumns columns.
template <int kKeys, int kColumns>
struct State {
  static constexpr int kRows = kKeys / kGroups;
  float numbers[kRows][kColumns];

  __device__ __forceinline__ void load(const float* from, int stride) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const Vector<float, kColumns> row = load_vector<kColumns>(from + i * stride);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) numbers[i][c] = row[c];
    }
  }
  __device__ __forceinline__ void store(float* to, int stride) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      Vector<float, kColumns> row;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) row[c] = numbers[i][c];
      store_vector<kColumns>(to + i * stride, row);
    }
  }

  // What the state holds for a key: S^T k, of all rows.
  __device__ __forceinline__ void held(const float* k, float (&out)[kColumns]) const {
    float sums[2][kColumns] = {};
#pragma unroll
    for (int i = 0; i < kRows; i += 4) {
      const Vector<float, 4> four = load_vector<4>(k + i);
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int c = 0; c < kColumns; ++c) sums[j % 2][c] += numbers[i + j][c] * four[j];
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) out[c] = group_sum(sums[0][c] + sums[1][c]);
  }

  // S = decay S + k change^T; S^T q into `out`.
  __device__ __forceinline__ void add(const float* k, const float* q, float decay, const float (&change)[kColumns],
                                      float (&out)[kColumns]) {
    float sums[2][kColumns] = {};
#pragma unroll
    for (int i = 0; i < kRows; i += 4) {
      const Vector<float, 4> keys = load_vector<4>(k + i), queries = load_vector<4>(q + i);
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          numbers[i + j][c] = numbers[i + j][c] * decay + keys[j] * change[c];
          sums[j % 2][c] += numbers[i + j][c] * queries[j];
        }
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) out[c] = group_sum(sums[0][c] + sums[1][c]);
  }
};

// Block (part of the columns, head, sequence).
template <bool kDelta, int kKeys, int kColumns>
__global__ void __launch_bounds__(kThreads, 1) recurrent_kernel(const Arguments args) {
  using L = Layout<kKeys, kColumns>;
  DRYDOCK_DYNAMIC_SHARED(shared);
  dependency_wait();
  const int head = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
  const int64_t begin = args.starts[sequence], end = args.starts[sequence + 1];
  if (begin >= end) return;
  const int group = lane_index() / kAcross;
  const int own = (warp_index() * kAcross + lane_index() % kAcross) * kColumns;  // among the block's columns
  const int column = static_cast<int>(blockIdx.x) * L::kBlockColumns + own;
  const Tokens<kKeys, kColumns> tokens(args, shared, head, static_cast<int>(blockIdx.x) * L::kBlockColumns);
  const auto count_at = [&](int64_t t) { return static_cast<int>(end - t < kAtOnce ? end - t : kAtOnce); };
  tokens.fetch(begin, count_at(begin));
  const float skip = kDelta ? 0 : args.skip[head];
  float* const place =
      args.states +
      ((static_cast<int64_t>(args.slots[sequence]) * args.heads + head) * kKeys + group * L::kRows) * args.v_dim +
      column;
  State<kKeys, kColumns> state;
  state.load(place, args.v_dim);
  for (int64_t first = begin; first < end; first += kAtOnce) {
    const int count = count_at(first);
    copy_async_wait<0>();
    sync_block();  // these tokens are here for all, and all are done with those before
    tokens.template convert<kDelta>(first, count);
    sync_block();
    if (first + kAtOnce < end) tokens.fetch(first + kAtOnce, count_at(first + kAtOnce));
    for (int t = 0; t < count; ++t) {
      const float* const k = tokens.keys() + t * L::kKeyStride + group * L::kGroupStride;
      const float* const q = tokens.queries() + t * L::kKeyStride + group * L::kGroupStride;
      const float decay = tokens.decays()[t], gain = tokens.gains()[t];
      float change[kColumns], value[kColumns], out[kColumns];
      if constexpr (kDelta) state.held(k, change);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        value[c] = tokens.values()[t * L::kBlockColumns + own + c];
        change[c] = gain * (kDelta ? value[c] - decay * change[c] : value[c]);
      }
      state.add(k, q, decay, change, out);
      if (group != 0) continue;
      Bf16* const to = args.out + ((first + t) * args.heads + head) * args.v_dim + column;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) to[c] = to_bf16(out[c] + skip * value[c]);
    }
  }
  dependency_launch();
  state.store(place, args.v_dim);
}

template <bool kDelta, int kKeys, int kColumns>
void start(const Arguments& args, int64_t batch, Stream stream) {
  using L = Layout<kKeys, kColumns>;
  const LaunchShape shape{.grid_x = static_cast<unsigned>(args.v_dim / L::kBlockColumns),
                          .grid_y = static_cast<unsigned>(args.heads),
                          .grid_z = static_cast<unsigned>(batch),
                          .threads = kThreads,
                          .shared_bytes = L::kSharedBytes,
                          .programmatic = true};
  launch(recurrent_kernel<kDelta, kKeys, kColumns>, shape, stream, args);
}

template <bool kDelta>
void start(const Arguments& args, int64_t batch, int64_t keys, int columns, const char* op, Stream stream) {
  const auto refuse = [&](const std::string& what, const char* right) {
    throw core::Error(std::string(op) + ": " + what + "; " + right + " right");
  };
  check_grid(batch, "batch", op);
  check_grid(args.heads, "heads", op);
  if (keys != 64 && keys != 128) refuse("keys of " + std::to_string(keys) + " numbers", "64 or 128 are");
  if (args.v_dim % 32 != 0 || args.v_dim <= 0)
    refuse("values of " + std::to_string(args.v_dim) + " numbers", "a multiple of 32 is");
  if (args.x_stride % 8 != 0) refuse("rows of " + std::to_string(args.x_stride) + " numbers", "a multiple of 8 is");
  if (columns == 0) columns = recurrent_columns(batch * args.heads, args.v_dim, multiprocessors());
  if (columns == 2 && args.v_dim % 64 == 0)
    return keys == 64 ? start<kDelta, 64, 2>(args, batch, stream) : start<kDelta, 128, 2>(args, batch, stream);
  keys == 64 ? start<kDelta, 64, 1>(args, batch, stream) : start<kDelta, 128, 1>(args, batch, stream);
}

void require_bf16(core::Dtype dtype, const char* op) {
  if (dtype != core::Dtype::bf16)
    throw core::Error(std::string(op) + ": numbers are " + std::string(core::name(dtype)) + "; bf16 is right on a GPU");
}

}  // namespace

int recurrent_columns(int64_t heads, int64_t v_dim, int sms) {
  // Blocks of 64 columns: four of them fill a multiprocessor's registers.
  return v_dim % 64 == 0 && heads * (v_dim / 64) >= 4 * static_cast<int64_t>(sms) ? 2 : 1;
}

void gated_delta(const GatedDelta& op, Stream stream, int columns) {
  require_bf16(op.dtype, "gated_delta");
  if (op.k_heads <= 0 || op.v_heads % op.k_heads != 0)
    throw core::Error("gated_delta: " + std::to_string(op.v_heads) + " value heads on " + std::to_string(op.k_heads) +
                      " key heads; a multiple is right");
  if (op.batch == 0 || op.tokens == 0) return;
  Arguments args;
  args.x = static_cast<const Bf16*>(op.qkv);
  args.k_at = op.k_heads * op.k_dim, args.v_at = 2 * args.k_at;
  args.x_stride = args.v_at + op.v_heads * op.v_dim;
  args.first_gate = static_cast<const Bf16*>(op.a), args.second_gate = static_cast<const Bf16*>(op.b);
  args.gate_stride = op.gate_stride;
  args.a_log = op.a_log, args.dt_bias = op.dt_bias;
  args.states = op.states.data, args.slots = op.states.slots;
  args.out = static_cast<Bf16*>(op.out), args.starts = op.starts;
  args.heads = static_cast<int>(op.v_heads), args.sharers = static_cast<int>(op.v_heads / op.k_heads);
  args.v_dim = static_cast<int>(op.v_dim);
  args.q_scale = 1 / std::sqrt(static_cast<float>(op.k_dim));
  start<true>(args, op.batch, op.k_dim, columns, "gated_delta", stream);
}

void mamba2(const Mamba2& op, Stream stream, int columns) {
  require_bf16(op.dtype, "mamba2");
  if (op.groups <= 0 || op.heads % op.groups != 0)
    throw core::Error("mamba2: " + std::to_string(op.heads) + " heads in " + std::to_string(op.groups) +
                      " groups; a multiple is right");
  if (op.batch == 0 || op.tokens == 0) return;
  Arguments args;
  args.x = static_cast<const Bf16*>(op.xbc);
  args.k_at = op.heads * op.head_dim, args.q_at = args.k_at + op.groups * op.state;
  args.x_stride = args.q_at + op.groups * op.state;
  args.first_gate = static_cast<const Bf16*>(op.dt);
  args.gate_stride = op.dt_stride;
  args.a_log = op.a_log, args.dt_bias = op.dt_bias, args.skip = op.skip;
  args.states = op.states.data, args.slots = op.states.slots;
  args.out = static_cast<Bf16*>(op.out), args.starts = op.starts;
  args.heads = static_cast<int>(op.heads), args.sharers = static_cast<int>(op.heads / op.groups);
  args.v_dim = static_cast<int>(op.head_dim);
  start<false>(args, op.batch, op.state, columns, "mamba2", stream);
}

}  // namespace drydock::kernels::cuda
