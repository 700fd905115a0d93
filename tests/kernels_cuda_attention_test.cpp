// Decode attention on a GPU, or emulated, against the reference in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/reference.h"
#include "tests/effort.h"
#include "tests/kernels_cuda_attention_bed.h"

namespace drydock::tests {
namespace {

using kernels::cuda::Combining;
using kernels::cuda::SplitOptions;

struct DecodeCase {
  int64_t kv_heads = 1, group = 1, head_dim = 64, block_tokens = 16, window = 0;
  std::vector<int32_t> contexts;
  core::Dtype dtype = core::Dtype::bf16;
  bool sinks = false;
  SplitOptions options;
};

class DecodeProblem {
 public:
  explicit DecodeProblem(const DecodeCase& c, uint64_t seed)
      : random_(seed),
        case_(c),
        heads_(c.kv_heads * c.group),
        count_(static_cast<int64_t>(c.contexts.size()) * heads_ * c.head_dim),
        cache_(random_, c.contexts, kv(c)),
        q_(random_bf16(random_, count_)),
        sinks_(random_sinks(random_, heads_)) {}

  kernels::DecodeAttention op(bool on_device) {
    kernels::DecodeAttention op;
    op.q = q_.at(on_device);
    op.kv = cache_.view(on_device);
    op.contexts = cache_.contexts.at(on_device);
    op.batch = static_cast<int64_t>(case_.contexts.size());
    op.heads = heads_;
    op.most_context = *std::max_element(case_.contexts.begin(), case_.contexts.end());
    op.window = case_.window;
    op.sinks = case_.sinks ? sinks_.at(on_device) : nullptr;
    op.scale = 4 / std::sqrt(static_cast<float>(case_.head_dim));  // logits of a spread of about 1.3
    return op;
  }

  void run_and_check(int times = 1) {
    const std::vector<double> want = kernels::reference::decode_attention(op(false));
    kernels::DecodeAttention on_device = op(true);
    const size_t bytes = kernels::cuda::decode_workspace_bytes(on_device, case_.options);
    OnDevice<uint8_t> workspace(poisoned_workspace(bytes, kernels::cuda::kAttentionCounterBytes));
    for (int i = 0; i < times; ++i) {
      OnDevice<kernels::Bf16> out(poisoned(count_));
      on_device.out = out.data();
      kernels::cuda::decode_attention(on_device, {workspace.data(), bytes}, nullptr, case_.options);
      check_close(out.read(), want, case_.dtype == core::Dtype::fp8 ? 0.5 : 1);
    }
  }

 private:
  static kernels::PagedKv kv(const DecodeCase& c) {
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

  core::Random random_;
  DecodeCase case_;
  int64_t heads_, count_;
  Cache cache_;
  Both<kernels::Bf16> q_;
  Both<float> sinks_;
};

DecodeCase random_decode(core::Random& random) {
  DecodeCase c;
  c.kv_heads = random.integer(1, 2);
  c.group = one_of<int64_t>(random, {1, 4, 5, 8, 16, 20});
  c.head_dim = one_of<int64_t>(random, {64, 64, 128, 256});
  c.block_tokens = one_of<int64_t>(random, {1, 16, 32, 64});
  const int64_t batch = random.integer(1, 3), longest = one_of<int64_t>(random, {10, 70, 300});
  for (int64_t s = 0; s < batch; ++s) c.contexts.push_back(static_cast<int32_t>(random.integer(0, longest)));
  c.window = random.integer(0, 2) == 0 ? random.integer(1, longest) : 0;
  c.dtype = random.integer(0, 1) == 0 ? core::Dtype::fp8 : core::Dtype::bf16;
  c.sinks = random.integer(0, 1) == 0;
  c.options.splits = random.integer(0, 5);
  c.options.combining = one_of(random, {Combining::automatic, Combining::fused, Combining::separate});
  return c;
}

std::string text(const DecodeCase& c) {
  std::string out = "kv_heads " + std::to_string(c.kv_heads) + ", group " + std::to_string(c.group) + ", head_dim " +
                    std::to_string(c.head_dim) + ", block_tokens " + std::to_string(c.block_tokens) + ", window " +
                    std::to_string(c.window) + ", " + std::string(core::name(c.dtype)) + (c.sinks ? ", sinks" : "") +
                    ", splits " + std::to_string(c.options.splits) + ", contexts";
  for (const int32_t t : c.contexts) out += " " + std::to_string(t);
  return out;
}

TEST_CASE("decode attention agrees with the reference on random shapes") {
  uint64_t seed = 0;
  in_every_order([&] {
    for (int i = 0; i < 20 / kLighter; ++i) {
      core::Random random(++seed);
      const DecodeCase c = random_decode(random);
      CAPTURE(seed);
      CAPTURE(text(c));
      DecodeProblem(c, seed).run_and_check();
    }
  });
}

TEST_CASE("any number of splits gives the same, and leaves the workspace ready for the next launch") {
  for (int64_t splits = 1; splits <= 7; ++splits) {
    for (const Combining combining : {Combining::fused, Combining::separate}) {
      CAPTURE(splits);
      DecodeCase c{
          .kv_heads = 2, .group = 4, .head_dim = 64, .block_tokens = 32, .window = 0, .contexts = {}, .options = {}};
      c.contexts = {401, 3, 64, 0, 130};  // sequences with fewer splits than the launch has, and with none
      c.options = {splits, combining};
      DecodeProblem(c, static_cast<uint64_t>(splits)).run_and_check(2);
    }
  }
}

TEST_CASE("contexts around the tile, the page and the window") {
  for (const int64_t window : {0, 1, 16, 17, 64}) {
    DecodeCase c{
        .kv_heads = 1, .group = 5, .head_dim = 64, .block_tokens = 16, .window = window, .contexts = {}, .options = {}};
    c.contexts = {0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129};
    c.sinks = true;
    CAPTURE(window);
    DecodeProblem(c, 7).run_and_check();
  }
}

TEST_CASE("a context beyond the bound that the host gave is read to its end") {
  DecodeCase c{
      .kv_heads = 1, .group = 4, .head_dim = 64, .block_tokens = 16, .window = 0, .contexts = {300}, .options = {}};
  c.options.splits = 2;
  DecodeProblem problem(c, 3);
  kernels::DecodeAttention op = problem.op(true);
  op.most_context = 100;
  const size_t bytes = kernels::cuda::decode_workspace_bytes(op, c.options);
  OnDevice<uint8_t> workspace(poisoned_workspace(bytes, kernels::cuda::kAttentionCounterBytes));
  OnDevice<kernels::Bf16> out(poisoned(4 * 64));
  op.out = out.data();
  kernels::cuda::decode_attention(op, {workspace.data(), bytes}, nullptr, c.options);
  check_close(out.read(), kernels::reference::decode_attention(problem.op(false)), 1);
}

TEST_CASE("what decode attention cannot compute is refused in one line") {
  const DecodeCase good{
      .kv_heads = 2, .group = 4, .head_dim = 64, .block_tokens = 16, .window = 0, .contexts = {400}, .options = {}};
  DecodeProblem problem(good, 1);
  const auto message = [&](auto change) -> std::string {
    kernels::DecodeAttention op = problem.op(true);
    change(op);
    try {
      kernels::cuda::decode_attention(op, {}, nullptr, {.splits = 4, .combining = Combining::automatic});
    } catch (const core::Error& error) {
      return error.what();
    }
    return "";
  };
  using Op = kernels::DecodeAttention;
  CHECK(message([](Op& op) { op.kv.head_dim = 96; }) == "decode attention: head_dim is 96; 64, 128 or 256 is right");
  CHECK(message([](Op& op) { op.heads = 7; }).find("7 heads on 2 KV heads") != std::string::npos);
  CHECK(message([](Op& op) { op.kv.block_tokens = 24; }).find("a power of two") != std::string::npos);
  CHECK(message([](Op& op) { op.kv.dtype = core::Dtype::fp32; }).find("bf16 or fp8") != std::string::npos);
  CHECK(message([](Op& op) { op.scale = 0; }).find("scale") != std::string::npos);
  CHECK(message([](Op&) {}).find("the workspace has 0 bytes") != std::string::npos);
  CHECK(message([](Op& op) { op.batch = 0; }).empty());
}

}  // namespace
}  // namespace drydock::tests
