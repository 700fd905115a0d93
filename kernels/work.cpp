#include "kernels/work.h"

namespace drydock::kernels {
namespace {

core::Dtype format(const Matrix& m) {
  return m.dtype == core::Dtype::fp8 && m.scaling == Scaling::block ? core::Dtype::fp8_block : m.dtype;
}

int64_t size_of(core::Dtype dtype, int64_t count) {
  return static_cast<int64_t>(core::bytes_per_element(dtype)) * count;
}

// Bytes of one row with its fresh scales.
int64_t row_bytes(const Matrix& m) {
  const int64_t scales = m.scaling == Scaling::row ? 1 : m.scaling == Scaling::block ? (m.cols + 127) / 128 : 0;
  return size_of(m.dtype, m.cols) + 4 * scales;
}

core::Op elementwise(core::Dtype dtype, int64_t tokens, int64_t read, int64_t written) {
  return core::make_op(core::OpKind::elementwise, dtype, dtype, {tokens, read, written});
}

}  // namespace

core::Op op_of(const Gemm& op) {
  return core::make_op(core::OpKind::gemm, format(op.b), format(op.b), {op.a.rows, op.b.rows, op.a.cols});
}

core::Op op_of(const DecodeAttention& op) {
  return core::make_op(core::OpKind::decode_attention, op.dtype, op.kv.dtype,
                       {op.batch, op.most_context, op.heads, op.kv.kv_heads, op.kv.head_dim, op.window});
}

core::Op op_of(const PrefillAttention& op, int64_t cached_tokens) {
  return core::make_op(core::OpKind::prefill_attention, op.dtype, op.kv.dtype,
                       {op.batch, op.most_new, cached_tokens, op.heads, op.kv.kv_heads, op.kv.head_dim, op.window});
}

core::Op op_of(const MlaDecode& op) {
  return core::make_op(core::OpKind::mla_decode, op.dtype, op.dtype,
                       {op.batch, op.most_context, op.heads, op.latent, op.rope});
}

core::Op op_of(const SparseMla& op) {
  return core::make_op(core::OpKind::sparse_mla, op.dtype, op.dtype,
                       {op.tokens, op.most_selected, op.heads, op.latent, op.rope});
}

core::Op op_of(const IndexScore& op) {
  return core::make_op(core::OpKind::index_score, core::Dtype::fp8, core::Dtype::fp8,
                       {op.batch, op.most_new, op.most_context, op.heads, op.head_dim});
}

core::Op op_of(const MlaPrefill& op, int64_t cached_tokens) {
  return core::make_op(core::OpKind::mla_prefill, op.dtype, op.dtype,
                       {op.batch, op.most_new, cached_tokens, op.heads, op.nope + op.rope, op.value_dim});
}

core::Op op_of(const GatedDelta& op) {
  return core::make_op(core::OpKind::gated_delta, op.dtype, op.dtype,
                       {op.batch, op.tokens / op.batch, op.k_heads, op.v_heads, op.k_dim, op.v_dim});
}

core::Op op_of(const Mamba2& op) {
  return core::make_op(core::OpKind::mamba2, op.dtype, op.dtype,
                       {op.batch, op.tokens / op.batch, op.heads, op.head_dim, op.state, op.groups});
}

core::Op op_of(const AddRmsNorm& op) {
  const int64_t residual = row_bytes(op.residual);
  if (op.x.data == nullptr) return elementwise(op.residual.dtype, op.residual.rows, residual, row_bytes(op.out));
  return elementwise(op.residual.dtype, op.residual.rows, residual + row_bytes(op.x), residual + row_bytes(op.out));
}

core::Op op_of(const SiluMul& op) { return elementwise(op.x.dtype, op.x.rows, row_bytes(op.x), row_bytes(op.out)); }

core::Op op_of(const Quantize& op) { return elementwise(op.x.dtype, op.x.rows, row_bytes(op.x), row_bytes(op.out)); }

core::Op op_of(const RopeAppend& op) {
  const int64_t cached = op.kv.kv_heads * op.kv.head_dim, rotated = op.heads * op.kv.head_dim + cached;
  return elementwise(op.dtype, op.tokens, size_of(op.dtype, rotated + cached),
                     size_of(op.dtype, rotated) + size_of(op.kv.dtype, 2 * cached));
}

core::Op op_of(const Embed& op) {
  return elementwise(op.table.dtype, op.out.rows, row_bytes(op.table), row_bytes(op.out));
}

}  // namespace drydock::kernels
