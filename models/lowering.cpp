#include "models/lowering.h"

#include <algorithm>
#include <cmath>

namespace drydock::models {
namespace {

using core::Dtype;
using core::Op;
using core::OpKind;
constexpr double kBf16 = 2;  // bytes; activations between kernels

int64_t whole(double x) { return std::max<int64_t>(1, std::llround(x)); }
// Ops take whole sequences; a rank that has a share of a prompt on average runs the op as often. Decode has one op
// whatever the batch.
double launches(const BatchPart& part) {
  return part.is_decode ? 1 : part.sequences / static_cast<double>(whole(part.sequences));
}
int64_t split(int64_t extent, int64_t ways) { return std::max<int64_t>(1, (extent + ways - 1) / ways); }

// Lowers one step; a short-lived helper so that the parts of a layer share the batch's totals.
class Step {
 public:
  Step(const Architecture& arch, const Precision& precision, const Parallelism& parallelism, Batch batch,
       std::vector<LayerOp>& ops)
      : arch_(arch), precision_(precision), p_(parallelism), batch_(batch), ops_(ops) {
    double tokens = 0, emitting = 0;
    for (const BatchPart& part : batch) {
      tokens += part.sequences * static_cast<double>(part.new_tokens);
      if (part.emits) emitting += part.sequences * static_cast<double>(part.is_decode ? part.new_tokens : 1);
    }
    tokens_ = whole(tokens);
    emitting_ = emitting > 0 ? whole(emitting) : 0;
  }

  void layer(const LayerKind& kind, double count) {
    count_ = count;
    norm();
    mixer(kind.attention);
    if (!kind.ffn) return;
    norm();
    if (kind.ffn->is_moe())
      moe(*kind.ffn);
    else
      dense(*kind.ffn, Module::ffn, p_.tp, true);
  }

  void embedding() {
    count_ = 1;
    small(Module::embedding, kBf16 * hidden(), kBf16 * hidden());
    all_reduce(Module::communication, tokens_);
  }

  void head() {
    count_ = 1;
    if (emitting_ == 0) return;
    const int64_t vocab = split(arch_.vocab, p_.tp);
    add(Module::head,
        core::make_op(OpKind::elementwise, Dtype::bf16, Dtype::bf16, {emitting_, 4 * arch_.hidden, 2 * arch_.hidden}));
    add(Module::head, core::make_op(OpKind::gemm, Dtype::bf16, Dtype::bf16, {emitting_, vocab, arch_.hidden}));
    if (p_.tp > 1)
      add(Module::communication,
          core::make_op(OpKind::all_gather, Dtype::bf16, Dtype::bf16, {emitting_ * vocab * p_.tp * 2, p_.tp}));
    // Sampling reads the logits of its requests a few times over.
    add(Module::head, core::make_op(OpKind::elementwise, Dtype::bf16, Dtype::bf16, {emitting_, 8 * arch_.vocab, 4}));
  }

  void from_previous_stage() {
    count_ = 1;
    const int64_t bytes = tokens_ * arch_.hidden * 2 / p_.tp;
    add(Module::communication, core::make_op(OpKind::send_recv, Dtype::bf16, Dtype::bf16,
                                             {std::max<int64_t>(1, bytes), p_.tp * p_.attention_dp + 1}));
  }

 private:
  double hidden() const { return static_cast<double>(arch_.hidden); }

  void add(Module module, const Op& op, double times = 1) {
    for (LayerOp& item : ops_)
      if (item.module == module && item.op == op) {
        item.count += count_ * times;
        return;
      }
    ops_.push_back({op, count_ * times, module});
  }

  void gemm(Module module, Dtype dtype, int64_t m, int64_t n, int64_t k) {
    add(module, core::make_op(OpKind::gemm, dtype, dtype, {m, n, k}));
  }

  // One memory-bound kernel over the step's tokens; bytes per token.
  void small(Module module, double read, double written) {
    add(module, core::make_op(OpKind::elementwise, Dtype::bf16, Dtype::bf16,
                              {tokens_, std::llround(read), std::llround(written)}));
  }

  // Residual add, RMSNorm and the quantization for the next GEMM: one kernel.
  void norm() { small(Module::norm, 2 * kBf16 * hidden(), 2 * kBf16 * hidden()); }

  void all_reduce(Module module, int64_t tokens) {
    if (p_.tp > 1)
      add(module, core::make_op(OpKind::all_reduce, Dtype::bf16, Dtype::bf16, {tokens * arch_.hidden * 2, p_.tp}));
  }

  void mixer(const Attention& a) {
    switch (a.kind) {
      case AttentionKind::full:
      case AttentionKind::sliding:
      case AttentionKind::chunked:
        grouped_query(a);
        break;
      case AttentionKind::mla:
      case AttentionKind::sparse_mla:
        latent(a);
        break;
      case AttentionKind::gated_delta:
        gated_delta(a);
        break;
      case AttentionKind::mamba2:
        mamba2(a);
        break;
    }
    all_reduce(Module::communication, tokens_);
  }

  void grouped_query(const Attention& a) {
    const int64_t heads = split(a.heads, p_.tp), kv_heads = split(a.kv_heads, p_.tp), d = a.head_dim;
    const int64_t q_width = heads * d * (a.output_gate ? 2 : 1);
    gemm(Module::qkv, precision_.attention_gemm, tokens_, q_width + 2 * kv_heads * d, arch_.hidden);
    const double qkv_bytes = kBf16 * static_cast<double>((heads + 2 * kv_heads) * d);
    small(Module::qkv, qkv_bytes, qkv_bytes);  // rotary embedding, q and k norms, KV append
    if (a.qk_norm_whole && p_.tp > 1)          // sums of squares of q and of k, fp32
      add(Module::communication, core::make_op(OpKind::all_reduce, Dtype::bf16, Dtype::bf16, {tokens_ * 8, p_.tp}));
    for (const BatchPart& part : batch_) attend(a, part, heads, kv_heads);
    gemm(Module::attention_out, precision_.attention_gemm, tokens_, arch_.hidden, heads * d);
  }

  void attend(const Attention& a, const BatchPart& part, int64_t heads, int64_t kv_heads) {
    if (part.sequences <= 0) return;
    int64_t context = part.context, window = a.kind == AttentionKind::sliding ? a.window : 0;
    // Chunked attention sees its own chunk only: half of one on average once the context is longer.
    if (a.kind == AttentionKind::chunked && context + part.new_tokens > a.window) {
      context = part.is_decode ? a.window / 2 : 0;
      window = part.is_decode ? 0 : a.window / 2;
    }
    const int64_t sequences = whole(part.sequences);
    // Tokens to verify are further query heads of their sequence: its KV is read once for all.
    const Op op = part.is_decode
                      ? core::make_op(OpKind::decode_attention, precision_.attention, precision_.kv,
                                      {sequences, context + part.new_tokens, heads * part.new_tokens, kv_heads,
                                       a.head_dim, window})
                      : core::make_op(OpKind::prefill_attention, precision_.attention, precision_.kv,
                                      {sequences, part.new_tokens, context, heads, kv_heads, a.head_dim, window});
    add(Module::attention, op, launches(part));
  }

  // DeepSeek-V2 report, section 2.1; decode absorbs the up-projections into the query and the output.
  void latent(const Attention& a) {
    const int64_t heads = split(a.heads, p_.tp), qk = a.nope_dim + a.rope_dim;
    const int64_t q_in = a.q_lora_rank > 0 ? a.q_lora_rank : arch_.hidden;
    const Dtype g = precision_.attention_gemm;
    gemm(Module::qkv, g, tokens_, a.q_lora_rank + a.kv_lora_rank + a.rope_dim, arch_.hidden);
    small(Module::qkv, kBf16 * static_cast<double>(a.q_lora_rank + a.kv_lora_rank),
          kBf16 * static_cast<double>(a.q_lora_rank + a.kv_lora_rank));
    gemm(Module::qkv, g, tokens_, heads * qk, q_in);
    if (a.kind == AttentionKind::sparse_mla) {
      gemm(Module::qkv, g, tokens_, a.index_heads * a.index_dim, q_in);
      gemm(Module::qkv, Dtype::bf16, tokens_, a.index_dim + a.index_heads, arch_.hidden);
    }
    for (const BatchPart& part : batch_)
      if (part.sequences > 0) latent_attend(a, part, heads, qk);
    gemm(Module::attention_out, g, tokens_, arch_.hidden, heads * a.v_dim);
  }

  void latent_attend(const Attention& a, const BatchPart& part, int64_t heads, int64_t qk) {
    const int64_t sequences = whole(part.sequences), context = part.context + part.new_tokens;
    const int64_t rows = whole(part.sequences * static_cast<double>(part.new_tokens));
    const int64_t queries = part.is_decode ? heads * part.new_tokens : heads;  // tokens to verify read the KV together
    const bool sparse = a.kind == AttentionKind::sparse_mla && context > a.index_top_k;
    if (a.kind == AttentionKind::sparse_mla)
      add(Module::attention,
          core::make_op(OpKind::index_score, Dtype::fp8, Dtype::fp8,
                        {sequences, part.new_tokens, context, a.index_heads, a.index_dim}),
          launches(part));
    if (!part.is_decode && !sparse) {
      gemm(Module::qkv, precision_.attention_gemm, whole(part.sequences * static_cast<double>(context)),
           heads * (a.nope_dim + a.v_dim), a.kv_lora_rank);
      add(Module::attention,
          core::make_op(OpKind::mla_prefill, precision_.attention, precision_.kv,
                        {sequences, part.new_tokens, part.context, heads, qk, a.v_dim}),
          launches(part));
      return;
    }
    absorb(rows, a.kv_lora_rank, a.nope_dim, heads);
    if (sparse)
      add(Module::attention, core::make_op(OpKind::sparse_mla, precision_.attention, precision_.kv,
                                           {rows, a.index_top_k, heads, a.kv_lora_rank, a.rope_dim}));
    else
      add(Module::attention, core::make_op(OpKind::mla_decode, precision_.attention, precision_.kv,
                                           {sequences, context, queries, a.kv_lora_rank, a.rope_dim}));
    absorb(rows, a.v_dim, a.kv_lora_rank, heads);
  }

  void absorb(int64_t rows, int64_t n, int64_t k, int64_t heads) {
    add(Module::attention, core::make_op(OpKind::batched_gemm, Dtype::bf16, Dtype::bf16, {rows, n, k, heads}));
  }

  // Qwen3-Next: q, k, v, output gate z and the two per-head gates from one projection, a short causal convolution, the
  // delta rule, a gated norm.
  void gated_delta(const Attention& a) {
    const int64_t k_heads = split(a.k_heads, p_.tp), v_heads = split(a.v_heads, p_.tp);
    const int64_t qkv = 2 * k_heads * a.k_dim + v_heads * a.v_dim_linear;
    gemm(Module::qkv, precision_.attention_gemm, tokens_, qkv + v_heads * a.v_dim_linear + 2 * v_heads, arch_.hidden);
    small(Module::qkv, kBf16 * static_cast<double>(qkv), kBf16 * static_cast<double>(qkv));
    for (const BatchPart& part : batch_)
      if (part.sequences > 0)
        add(Module::attention,
            core::make_op(OpKind::gated_delta, Dtype::bf16, Dtype::bf16,
                          {whole(part.sequences), part.new_tokens, k_heads, v_heads, a.k_dim, a.v_dim_linear}),
            launches(part));
    small(Module::attention, 2 * kBf16 * static_cast<double>(v_heads * a.v_dim_linear),
          kBf16 * static_cast<double>(v_heads * a.v_dim_linear));
    gemm(Module::attention_out, precision_.attention_gemm, tokens_, arch_.hidden, v_heads * a.v_dim_linear);
  }

  void mamba2(const Attention& a) {
    const int64_t heads = split(a.v_heads, p_.tp), groups = split(a.groups, p_.tp), inner = heads * a.v_dim_linear;
    const int64_t conv = inner + 2 * groups * a.state;
    gemm(Module::qkv, precision_.attention_gemm, tokens_, inner + conv + heads, arch_.hidden);
    small(Module::qkv, kBf16 * static_cast<double>(conv), kBf16 * static_cast<double>(conv));
    for (const BatchPart& part : batch_)
      if (part.sequences > 0)
        add(Module::attention,
            core::make_op(OpKind::mamba2, Dtype::bf16, Dtype::bf16,
                          {whole(part.sequences), part.new_tokens, heads, a.v_dim_linear, a.state, groups}),
            launches(part));
    small(Module::attention, 2 * kBf16 * static_cast<double>(inner), kBf16 * static_cast<double>(inner));
    gemm(Module::attention_out, precision_.attention_gemm, tokens_, arch_.hidden, inner);
  }

  void dense(const Ffn& f, Module module, int64_t ways, bool reduce) {
    const int64_t inter = split(module == Module::shared_expert ? f.shared_inter : f.inter, ways),
                  wide = inter * (f.gated ? 2 : 1);
    gemm(module, precision_.gemm, tokens_, wide, arch_.hidden);
    small(module, kBf16 * static_cast<double>(wide), kBf16 * static_cast<double>(inter));
    gemm(module, precision_.gemm, tokens_, arch_.hidden, inter);
    if (reduce) all_reduce(Module::communication, tokens_);
  }

  // Without attention DP every rank of the instance holds the same tokens, and one all-reduce sums experts and shared
  // expert alike. With it, tokens travel to their experts and back.
  void moe(const Ffn& f) {
    // The op has three products; experts without a gate have two, which is a gated expert of two thirds of the width.
    const int64_t width = split(f.gated ? f.inter : f.inter * 2 / 3, p_.moe_tp);
    const int64_t group_tokens = tokens_ * p_.attention_dp;
    gemm(Module::router, Dtype::bf16, tokens_, f.experts, arch_.hidden);
    small(Module::router, 4.0 * static_cast<double>(f.experts),
          8.0 * static_cast<double>(f.top_k));  // softmax, top-k, sort
    if (p_.attention_dp > 1) exchange(f, true);
    add(Module::experts, core::make_op(OpKind::moe, precision_.moe, precision_.moe,
                                       {group_tokens, arch_.hidden, width, f.experts, f.top_k, p_.ep}));
    if (p_.attention_dp > 1) exchange(f, false);
    if (f.shared_inter > 0) dense(f, Module::shared_expert, p_.attention_dp > 1 ? 1 : p_.tp, false);
    if (p_.attention_dp == 1) all_reduce(Module::communication, tokens_);
  }

  // Dispatch and combine kernels pay across nodes; within one, engines gather all tokens on every rank and scatter the
  // sums (vLLM's all2all backend allgather_reducescatter, TensorRT-LLM without a two-sided NVLink exchange).
  void exchange(const Ffn& f, bool out) {
    constexpr int kRanksOfANode = 8;
    if (p_.moe_tp == 1 && p_.attention_dp * p_.tp > kRanksOfANode) {
      const OpKind kind = out ? OpKind::moe_dispatch : OpKind::moe_combine;
      const Dtype dtype = out && precision_.moe != Dtype::bf16 ? Dtype::fp8 : Dtype::bf16;
      add(Module::communication,
          core::make_op(kind, dtype, dtype, {split(tokens_, p_.tp), arch_.hidden, f.top_k, f.experts, p_.ep}));
      return;
    }
    const int64_t ranks = static_cast<int64_t>(p_.attention_dp) * p_.tp;
    add(Module::communication, core::make_op(out ? OpKind::all_gather : OpKind::reduce_scatter, Dtype::bf16,
                                             Dtype::bf16, {tokens_ * p_.attention_dp * arch_.hidden * 2, ranks}));
  }

  const Architecture& arch_;
  const Precision& precision_;
  const Parallelism& p_;
  Batch batch_;
  std::vector<LayerOp>& ops_;
  int64_t tokens_ = 1, emitting_ = 0;
  double count_ = 1;  // layers that the ops being added stand for
};

}  // namespace

std::string_view name(Module module) {
  constexpr std::string_view kNames[kModules] = {"embedding",     "norm", "qkv",          "attention",
                                                 "attention_out", "ffn",  "router",       "experts",
                                                 "shared_expert", "head", "communication"};
  return kNames[static_cast<int>(module)];
}

Lowering::Lowering(const Architecture& architecture, const Precision& precision, const Parallelism& parallelism)
    : architecture_(&architecture), precision_(precision), parallelism_(parallelism) {
  const auto layers = architecture.layer_kinds.size(), stages = static_cast<size_t>(parallelism.pp);
  stage_kind_counts_.assign(stages, std::vector<int64_t>(architecture.kinds.size(), 0));
  for (size_t i = 0; i < layers; ++i) ++stage_kind_counts_[i * stages / layers][architecture.layer_kinds[i]];
}

int64_t Lowering::stage_layers(int stage) const {
  int64_t layers = 0;
  for (const int64_t count : stage_kind_counts_[static_cast<size_t>(stage)]) layers += count;
  return layers;
}

int64_t Lowering::latent_layers(int stage) const {
  int64_t layers = 0;
  const auto& counts = stage_kind_counts_[static_cast<size_t>(stage)];
  for (size_t kind = 0; kind < counts.size(); ++kind) {
    const AttentionKind attention = architecture_->kinds[kind].attention.kind;
    if (attention == AttentionKind::mla || attention == AttentionKind::sparse_mla) layers += counts[kind];
  }
  return layers;
}

void Lowering::lower(Batch batch, int stage, std::vector<LayerOp>& ops) const {
  ops.clear();
  Step step(*architecture_, precision_, parallelism_, batch, ops);
  const auto& counts = stage_kind_counts_[static_cast<size_t>(stage)];
  if (stage == 0)
    step.embedding();
  else
    step.from_previous_stage();
  for (size_t kind = 0; kind < counts.size(); ++kind)
    if (counts[kind] > 0) step.layer(architecture_->kinds[kind], static_cast<double>(counts[kind]));
  if (stage + 1 == parallelism_.pp) step.head();
}

}  // namespace drydock::models
