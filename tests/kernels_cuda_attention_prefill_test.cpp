// Prefill attention on a GPU, or emulated, against the reference in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/reference.h"
#include "tests/effort.h"
#include "tests/kernels_cuda_attention_bed.h"

namespace drydock::tests {
namespace {

using kernels::cuda::PrefillPath;

struct Chunk {
  int64_t fresh, cached;
};
struct PrefillCase {
  int64_t kv_heads = 1, group = 1, head_dim = 64, block_tokens = 16, window = 0;
  std::vector<Chunk> chunks = {};
  core::Dtype dtype = core::Dtype::bf16;
  bool sinks = false;
};

std::vector<int32_t> contexts_of(const PrefillCase& c) {
  std::vector<int32_t> out;
  for (const Chunk& chunk : c.chunks) out.push_back(static_cast<int32_t>(chunk.fresh + chunk.cached));
  return out;
}
std::vector<int32_t> starts_of(const PrefillCase& c) {
  std::vector<int32_t> out = {0};
  for (const Chunk& chunk : c.chunks) out.push_back(out.back() + static_cast<int32_t>(chunk.fresh));
  return out;
}
kernels::PagedKv kv_of(const PrefillCase& c) {
  kernels::PagedKv out;
  out.dtype = c.dtype;
  if (c.dtype == core::Dtype::fp8) {
    out.k_scale = 1.25F;
    out.v_scale = 0.5F;
  }
  out.kv_heads = c.kv_heads;
  out.head_dim = c.head_dim;
  out.block_tokens = c.block_tokens;
  return out;
}

class PrefillProblem {
 public:
  PrefillProblem(const PrefillCase& c, uint64_t seed)
      : random_(seed),
        case_(c),
        heads_(c.kv_heads * c.group),
        starts_(starts_of(c)),
        count_(starts_.host.back() * heads_ * c.head_dim),
        cache_(random_, contexts_of(c), kv_of(c)),
        q_(random_bf16(random_, count_)),
        sinks_(random_sinks(random_, heads_)) {}

  kernels::PrefillAttention op(bool on_device) {
    kernels::PrefillAttention op;
    op.q = q_.at(on_device);
    op.kv = cache_.view(on_device);
    op.starts = starts_.at(on_device);
    op.contexts = cache_.contexts.at(on_device);
    op.tokens = starts_.host.back();
    op.batch = static_cast<int64_t>(case_.chunks.size());
    op.heads = heads_;
    for (const Chunk& chunk : case_.chunks) op.most_new = std::max(op.most_new, chunk.fresh);
    op.window = case_.window;
    op.sinks = case_.sinks ? sinks_.at(on_device) : nullptr;
    op.scale = 4 / std::sqrt(static_cast<float>(case_.head_dim));  // logits of a spread of about 1.3
    return op;
  }

  // On every path that can run it here.
  void run_and_check() {
    const std::vector<double> want = kernels::reference::prefill_attention(op(false));
    for (const PrefillPath path : {PrefillPath::any, PrefillPath::hopper}) {
      kernels::PrefillAttention on_device = op(true);
      if (!kernels::cuda::can_prefill(on_device, path)) continue;
      CAPTURE(static_cast<int>(path));
      OnDevice<kernels::Bf16> out(poisoned(count_));
      on_device.out = out.data();
      kernels::cuda::prefill_attention(on_device, nullptr, path);
      check_close(out.read(), want, case_.dtype == core::Dtype::fp8 ? 0.5 : 1);
    }
  }

 private:
  core::Random random_;
  PrefillCase case_;
  int64_t heads_;
  Both<int32_t> starts_;
  int64_t count_;
  Cache cache_;
  Both<kernels::Bf16> q_;
  Both<float> sinks_;
};

PrefillCase random_prefill(core::Random& random) {
  PrefillCase c;
  c.kv_heads = random.integer(1, 2);
  c.group = one_of<int64_t>(random, {1, 4, 5, 8, 16});
  c.head_dim = one_of<int64_t>(random, {64, 64, 64, 128, 256});
  c.block_tokens = one_of<int64_t>(random, {1, 8, 16, 32, 64});
  const int64_t batch = random.integer(1, 3), rows = c.head_dim == 256 ? 100 : 300;
  for (int64_t s = 0; s < batch; ++s)
    c.chunks.push_back({random.integer(0, rows / c.group / c.kv_heads), one_of<int64_t>(random, {0, 1, 16, 63, 150})});
  c.window = random.integer(0, 2) == 0 ? random.integer(1, 100) : 0;
  c.dtype = random.integer(0, 2) == 0 ? core::Dtype::fp8 : core::Dtype::bf16;
  c.sinks = random.integer(0, 1) == 0;
  return c;
}

std::string text(const PrefillCase& c) {
  std::string out = "kv_heads " + std::to_string(c.kv_heads) + ", group " + std::to_string(c.group) + ", head_dim " +
                    std::to_string(c.head_dim) + ", block_tokens " + std::to_string(c.block_tokens) + ", window " +
                    std::to_string(c.window) + ", " + std::string(core::name(c.dtype)) + (c.sinks ? ", sinks" : "") +
                    ", chunks";
  for (const Chunk& chunk : c.chunks) out += " " + std::to_string(chunk.cached) + "+" + std::to_string(chunk.fresh);
  return out;
}

TEST_CASE("prefill attention agrees with the reference on random shapes") {
  uint64_t seed = 0;
  in_every_order([&] {
    for (int i = 0; i < 12 / kLighter + 1; ++i) {
      core::Random random(++seed);
      const PrefillCase c = random_prefill(random);
      CAPTURE(seed);
      CAPTURE(text(c));
      PrefillProblem(c, seed).run_and_check();
    }
  });
}

TEST_CASE("chunks of a prompt that end around tiles and pages") {
  for (const int64_t fresh : {1, 63, 64, 65, 129}) {
    CAPTURE(fresh);
    PrefillCase c;
    c.chunks = {{fresh, 0}, {1, 64}, {2, 63}};
    PrefillProblem(c, static_cast<uint64_t>(fresh)).run_and_check();
  }
}

TEST_CASE("rows whose window begins tiles later than that of the first row of their tile") {
  for (const int64_t cached : {0, 200}) {
    CAPTURE(cached);
    PrefillCase c;
    c.window = 20;  // of 128 rows, the last see nothing of the first tile of 64 tokens
    c.chunks = {{150, cached}};
    PrefillProblem(c, 11).run_and_check();
  }
}

TEST_CASE("a window of one token gives its value, but for the sink") {
  PrefillCase c;
  c.window = 1;
  c.sinks = true;
  c.group = 4;
  c.chunks = {{40, 70}};
  PrefillProblem(c, 5).run_and_check();
}

TEST_CASE("what prefill attention cannot compute is refused in one line") {
  PrefillCase c;
  c.chunks = {{4, 0}};
  PrefillProblem problem(c, 1);
  kernels::PrefillAttention op = problem.op(true);
  op.kv.head_dim = 80;
  CHECK_THROWS_WITH_AS(kernels::cuda::prefill_attention(op, nullptr),
                       "prefill attention: head_dim is 80; 64, 128 or 256 is right", core::Error);
  op = problem.op(true);
  op.kv.block_tokens = 4;
  CHECK_THROWS_AS(kernels::cuda::prefill_attention(op, nullptr, PrefillPath::hopper), core::Error);
  op.tokens = 0;
  CHECK_NOTHROW(kernels::cuda::prefill_attention(op, nullptr));
}

}  // namespace
}  // namespace drydock::tests
