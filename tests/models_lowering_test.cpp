#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "models/catalogue.h"
#include "models/lowering.h"

using namespace drydock;
using namespace drydock::models;
using core::OpKind;

namespace {

std::vector<LayerOp> lowered(const Architecture& a, const Parallelism& p, std::vector<BatchPart> batch, int stage = 0) {
  std::vector<LayerOp> ops;
  Lowering(a, a.precision, p).lower(batch, stage, ops);
  return ops;
}

double total_flops(const std::vector<LayerOp>& ops, bool attention) {
  double sum = 0;
  for (const LayerOp& item : ops) {
    const bool attends = item.module == Module::attention && item.op.kind != OpKind::batched_gemm;
    if (attends == attention) sum += item.count * core::flops(item.op);
  }
  return sum;
}

double count_of(const std::vector<LayerOp>& ops, OpKind kind) {
  double n = 0;
  for (const LayerOp& item : ops)
    if (item.op.kind == kind) n += item.count;
  return n;
}

const core::Op& first(const std::vector<LayerOp>& ops, OpKind kind) {
  for (const LayerOp& item : ops)
    if (item.op.kind == kind) return item.op;
  FAIL("no op of kind " << core::name(kind));
  return ops.front().op;
}

}  // namespace

TEST_CASE("a decoded token costs two FLOP for each active parameter, for every model of the catalogue") {
  for (const std::string& name : model_names()) {
    CAPTURE(name);
    const Architecture a = find_model(name);
    // 1024 tokens at once, so that mean expert counts are whole; each emits.
    const double per_token = total_flops(lowered(a, {}, {{1024, 1, 1, true, true}}), false) / 1024;
    // Norms, convolutions, biases, sinks and gates are parameters that no GEMM here multiplies: under 1 %.
    // Absorbed MLA reads kv_b once as the parameters say, so it agrees as well.
    CHECK(per_token == doctest::Approx(2 * count_parameters(a).active).epsilon(0.012));
  }
}

TEST_CASE("tensor parallelism splits the arithmetic: each of 8 GPUs has an eighth, but for what is replicated") {
  const Architecture a = find_model("meta-llama/Llama-3.1-70B");
  const std::vector<BatchPart> batch = {{16, 1, 1000, true, true}};
  const double one = total_flops(lowered(a, {}, batch), false),
               eighth = total_flops(lowered(a, {8, 1, 1, 1, 1}, batch), false);
  CHECK(eighth == doctest::Approx(one / 8).epsilon(1e-3));
  CHECK(total_flops(lowered(a, {8, 1, 1, 1, 1}, batch), true) ==
        doctest::Approx(total_flops(lowered(a, {}, batch), true) / 8));
}

TEST_CASE("Llama-70B on 8 GPUs lowers to the shapes one writes on a napkin") {
  const Architecture a = find_model("meta-llama/Llama-3.1-70B");
  const auto ops = lowered(a, {8, 1, 1, 1, 1}, {{16, 1, 999, true, true}});
  // 64 / 8 query heads and 8 / 8 KV heads of 128: 1280 columns of q, k and v.
  CHECK(core::key(first(ops, OpKind::gemm)) == "gemm/bf16/m=16,n=1280,k=8192");
  CHECK(core::key(first(ops, OpKind::decode_attention)) ==
        "decode_attention/bf16/batch=16,context=1000,heads=8,kv_heads=1,head_dim=128,window=0");
  CHECK(core::key(first(ops, OpKind::all_reduce)) == "all_reduce/bf16/bytes=262144,gpus=8");  // 16 x 8192 x 2
  CHECK(count_of(ops, OpKind::all_reduce) == 161);  // two a layer and the embedding's
  CHECK(count_of(ops, OpKind::decode_attention) == 80);
}

TEST_CASE("prompt chunks and decode share the GEMMs of a mixed step and attend each on their own") {
  const Architecture a = find_model("Qwen/Qwen3-8B");
  const auto ops = lowered(a, {}, {{1, 2048, 2048, false, false}, {32, 1, 4000, true, true}});
  CHECK(first(ops, OpKind::gemm).shape[0] == 2080);
  CHECK(core::key(first(ops, OpKind::prefill_attention)) ==
        "prefill_attention/bf16/batch=1,new_tokens=2048,cached_tokens=2048,heads=32,kv_heads=8,head_dim=128,window=0");
  CHECK(first(ops, OpKind::decode_attention).shape[0] == 32);
  // A chunk that is not the prompt's last needs no logits: 32 rows, not 33.
  for (const LayerOp& item : ops)
    if (item.module == Module::head && item.op.kind == OpKind::gemm) CHECK(item.op.shape[0] == 32);
}

TEST_CASE("gpt-oss attends within 128 tokens in every other layer") {
  const auto ops = lowered(find_model("gpt-oss-120b"), {}, {{4, 1, 5000, true, true}});
  std::map<int64_t, double> by_window;
  for (const LayerOp& item : ops)
    if (item.op.kind == OpKind::decode_attention) by_window[item.op.shape[5]] += item.count;
  CHECK(by_window == std::map<int64_t, double>{{0, 18}, {128, 18}});
}

TEST_CASE("MLA is absorbed in decode and not in prefill") {
  const Architecture a = find_model("deepseek-ai/DeepSeek-R1");
  const auto decode = lowered(a, {}, {{8, 1, 999, true, true}});
  CHECK(core::key(first(decode, OpKind::mla_decode)) ==
        "mla_decode/bf16/batch=8,context=1000,heads=128,latent=512,rope_dim=64");
  CHECK(count_of(decode, OpKind::batched_gemm) == 122);  // into the latent and out of it, 61 layers
  const auto prefill = lowered(a, {}, {{1, 1000, 0, true, false}});
  CHECK(core::key(first(prefill, OpKind::mla_prefill)) ==
        "mla_prefill/bf16/batch=1,new_tokens=1000,cached_tokens=0,heads=128,qk_dim=192,v_dim=128");
  CHECK(count_of(prefill, OpKind::mla_decode) == 0);
}

TEST_CASE("sparse MLA scores all context but attends to what the indexer selects") {
  const Architecture a = find_model("deepseek-ai/DeepSeek-V3.2");
  const auto ops = lowered(a, {}, {{8, 1, 9999, true, true}});
  CHECK(first(ops, OpKind::index_score).shape[2] == 10000);
  CHECK(first(ops, OpKind::sparse_mla).shape[1] == 2048);
  CHECK(count_of(lowered(a, {}, {{8, 1, 1000, true, true}}), OpKind::mla_decode) == 61);  // shorter than the selection
}

TEST_CASE("with attention DP tokens travel to their experts; without it one all-reduce sums them") {
  const Architecture a = find_model("deepseek-ai/DeepSeek-R1");
  const auto wide = lowered(a, {1, 1, 16, 1, 16}, {{16, 1, 1000, true, true}});
  CHECK(count_of(wide, OpKind::moe_dispatch) == 58);
  CHECK(count_of(wide, OpKind::moe_combine) == 58);
  CHECK(count_of(wide, OpKind::all_reduce) == 0);
  CHECK(first(wide, OpKind::moe).shape[0] == 256);  // 16 tokens of each of 16 ranks
  // Inside a node all tokens are gathered on every rank: 128 of 7168 in bf16.
  const auto dp = lowered(a, {1, 1, 8, 1, 8}, {{16, 1, 1000, true, true}});
  CHECK(count_of(dp, OpKind::moe_dispatch) == 0);
  CHECK(count_of(dp, OpKind::reduce_scatter) == 58);
  CHECK(first(dp, OpKind::all_gather).shape[0] == 128 * 7168 * 2);
  const auto tp = lowered(a, {8, 1, 1, 1, 8}, {{16, 1, 1000, true, true}});
  CHECK(count_of(tp, OpKind::moe_dispatch) == 0);
  CHECK(count_of(tp, OpKind::all_reduce) == 123);
  CHECK(first(tp, OpKind::moe).shape[0] == 16);
}

TEST_CASE("attention of a token, by hand") {
  // Two products of one query head with 1000 keys of 128: 4 x 128 x 1000 FLOP, 64 heads, 80 layers.
  const Architecture llama = find_model("meta-llama/Llama-3.1-70B");
  CHECK(total_flops(lowered(llama, {}, {{1, 1, 999, true, true}}), true) ==
        doctest::Approx(80.0 * 64 * 4 * 128 * 1000));
  // A causal prompt of 1000 sees 500.5 keys on average.
  CHECK(total_flops(lowered(llama, {}, {{1, 1000, 0, true, false}}), true) ==
        doctest::Approx(1000 * 80.0 * 64 * 4 * 128 * 500.5).epsilon(1e-3));
  // Absorbed MLA: scores over 512 + 64, sum over 512, 128 heads, 61 layers. Not absorbed: over 192 and 128.
  const Architecture deepseek = find_model("deepseek-ai/DeepSeek-R1");
  CHECK(total_flops(lowered(deepseek, {}, {{1, 1, 999, true, true}}), true) ==
        doctest::Approx(61.0 * 128 * 2 * (576 + 512) * 1000));
  CHECK(total_flops(lowered(deepseek, {}, {{1, 1000, 0, true, false}}), true) ==
        doctest::Approx(1000 * 61.0 * 128 * 2 * (192 + 128) * 500.5).epsilon(1e-3));
  // gpt-oss: 18 of 36 layers see 128 keys, the others all 1000; 64 heads of 64.
  CHECK(total_flops(lowered(find_model("gpt-oss-120b"), {}, {{1, 1, 999, true, true}}), true) ==
        doctest::Approx(18.0 * 64 * 4 * 64 * (1000 + 128)));
}

TEST_CASE("a rank with an eighth of a prompt on average attends an eighth as often, in every family") {
  for (const std::string& name : model_names()) {
    CAPTURE(name);
    const Architecture a = find_model(name);
    const double whole = total_flops(lowered(a, {}, {{1, 4096, 4096, true, false}}), true);
    const double eighth = total_flops(lowered(a, {}, {{0.125, 4096, 4096, true, false}}), true);
    CHECK(eighth == doctest::Approx(whole / 8));
  }
}

TEST_CASE("a gated query and replicated KV heads widen the projection") {
  // Qwen3.5: 32 heads of 256 twice for the gate and 2 KV heads; on 8 GPUs (4 x 2 + 2 x 1) x 256 columns.
  const Architecture a = find_model("Qwen3.5-397B-A17B");
  bool found = false;
  for (const LayerOp& item : lowered(a, {8, 1, 1, 8, 1}, {{4, 1, 100, true, true}}))
    found |= item.module == Module::qkv && core::key(item.op) == "gemm/bf16/m=4,n=2560,k=4096" && item.count == 15;
  CHECK(found);
}

TEST_CASE("lowering again into the same list repeats it and takes no memory") {
  const Architecture a = find_model("deepseek-ai/DeepSeek-V3.2");
  const Lowering lowering(a, a.precision, {});
  const BatchPart batch[] = {{1, 512, 0, true, false}, {8, 1, 5000, true, true}};
  std::vector<LayerOp> ops;
  lowering.lower(batch, 0, ops);
  const size_t size = ops.size(), capacity = ops.capacity();
  const LayerOp* const data = ops.data();
  lowering.lower(batch, 0, ops);
  CHECK(ops.size() == size);
  CHECK(ops.capacity() == capacity);
  CHECK(ops.data() == data);
  for (size_t i = 0; i < size; ++i)
    for (size_t j = 0; j < i; ++j) CHECK_FALSE((ops[i].op == ops[j].op && ops[i].module == ops[j].module));
}

TEST_CASE("pipeline stages share the layers, the first embeds, the last has the head") {
  const Architecture a = find_model("Qwen/Qwen3-32B");
  const Parallelism p{1, 4, 1, 1, 1};
  const Lowering lowering(a, a.precision, p);
  double attention = 0;
  for (int stage = 0; stage < 4; ++stage) {
    CHECK(lowering.stage_layers(stage) == 16);
    const auto ops = lowered(a, p, {{4, 1, 10, true, true}}, stage);
    attention += count_of(ops, OpKind::decode_attention);
    CHECK(count_of(ops, OpKind::send_recv) == (stage > 0 ? 1 : 0));
    bool head = false, embedding = false;
    for (const LayerOp& item : ops) head |= item.module == Module::head, embedding |= item.module == Module::embedding;
    CHECK(head == (stage == 3));
    CHECK(embedding == (stage == 0));
  }
  CHECK(attention == 64);
}

TEST_CASE("every legal parallelism of every model lowers to ops with positive extents") {
  for (const std::string& name : model_names()) {
    const Architecture a = find_model(name);
    for (const int tp : {1, 2, 4, 8, 16})
      for (const int pp : {1, 2, 3})
        for (const int dp : {1, 4})
          for (const int ep : {1, 4, 16}) {
            const Parallelism p{tp, pp, dp, std::max(1, tp * dp / ep), ep};
            if (why_illegal(a, a.precision, p)) continue;
            for (int stage = 0; stage < pp; ++stage)
              for (const LayerOp& item :
                   lowered(a, p, {{0.5, 700, 100, true, false}, {2.5, 1, 900, true, true}}, stage)) {
                CAPTURE(core::key(item.op));
                CHECK(item.count > 0);
                for (size_t i = 0; i < core::dimension_names(item.op.kind).size(); ++i) {
                  const bool may_be_zero = core::dimension_names(item.op.kind)[i] == "window" ||
                                           core::dimension_names(item.op.kind)[i] == "cached_tokens";
                  CHECK(item.op.shape[i] >= (may_be_zero ? 0 : 1));
                }
              }
          }
  }
}
