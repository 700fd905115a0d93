#include "core/op.h"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cmath>

#include "core/error.h"

namespace drydock::core {
namespace {

struct KindInfo {
  std::string_view name;
  int dims;
  std::array<std::string_view, kMaxOpDims> dim_names;
};

constexpr std::array<KindInfo, kOpKinds> kKinds = {{
    {"gemm", 3, {"m", "n", "k"}},
    {"batched_gemm", 4, {"m", "n", "k", "heads"}},
    {"moe", 6, {"tokens", "hidden", "inter", "experts", "top_k", "ep"}},
    {"prefill_attention", 7, {"batch", "new_tokens", "cached_tokens", "heads", "kv_heads", "head_dim", "window"}},
    {"decode_attention", 6, {"batch", "context", "heads", "kv_heads", "head_dim", "window"}},
    {"mla_prefill", 6, {"batch", "new_tokens", "cached_tokens", "heads", "qk_dim", "v_dim"}},
    {"mla_decode", 5, {"batch", "context", "heads", "latent", "rope_dim"}},
    {"sparse_mla", 5, {"tokens", "selected", "heads", "latent", "rope_dim"}},
    {"index_score", 5, {"batch", "new_tokens", "context", "heads", "head_dim"}},
    {"gated_delta", 6, {"batch", "new_tokens", "k_heads", "v_heads", "k_dim", "v_dim"}},
    {"mamba2", 6, {"batch", "new_tokens", "heads", "head_dim", "state", "groups"}},
    {"elementwise", 3, {"tokens", "read_bytes", "written_bytes"}},
    {"all_reduce", 2, {"bytes", "gpus"}},
    {"all_gather", 2, {"bytes", "gpus"}},
    {"reduce_scatter", 2, {"bytes", "gpus"}},
    {"all_to_all", 2, {"bytes", "gpus"}},
    {"send_recv", 2, {"bytes", "span"}},
    {"moe_dispatch", 5, {"tokens", "hidden", "top_k", "experts", "ep"}},
    {"moe_combine", 5, {"tokens", "hidden", "top_k", "experts", "ep"}},
}};

// Group sizes and the like divide; these extents may be nothing.
bool may_be_zero(std::string_view dim) {
  return dim == "cached_tokens" || dim == "window" || dim == "read_bytes" || dim == "written_bytes" || dim == "bytes";
}

const KindInfo& info(OpKind kind) { return kKinds[static_cast<size_t>(kind)]; }

// Query-key pairs of one causal sequence whose `fresh` tokens follow `cached` ones; each sees at most `window` (0:
// all).
double causal_pairs(double fresh, double cached, double window) {
  if (window <= 0) return fresh * cached + fresh * (fresh + 1) / 2;
  const double ramp = std::clamp(window - cached, 0.0, fresh);  // tokens that still see everything before them
  return ramp * cached + ramp * (ramp + 1) / 2 + (fresh - ramp) * window;
}

double seen(double context, double window) { return window > 0 ? std::min(context, window) : context; }

// Experts that at least one of the tokens is routed to, routing uniform.
double touched_experts(double local_experts, double tokens, double top_k, double experts) {
  return local_experts * -std::expm1(tokens * std::log1p(-std::min(top_k / experts, 1.0 - 1e-12)));
}

// Expected number of distinct other ranks among the `top_k` experts of one token.
double remote_ranks(double top_k, double ep) {
  return (ep - 1) * -std::expm1(top_k * std::log1p(-1.0 / std::max(ep, 1.0)));
}

}  // namespace

std::string_view name(OpKind kind) { return info(kind).name; }

std::optional<OpKind> parse_op_kind(std::string_view text) {
  for (size_t i = 0; i < kKinds.size(); ++i)
    if (kKinds[i].name == text) return static_cast<OpKind>(i);
  return std::nullopt;
}

std::span<const std::string_view> dimension_names(OpKind kind) {
  return {info(kind).dim_names.data(), static_cast<size_t>(info(kind).dims)};
}

Op make_op(OpKind kind, Dtype dtype, Dtype kv_dtype, std::initializer_list<int64_t> extents) {
  assert(static_cast<int>(extents.size()) == info(kind).dims);
  Op op{kind, dtype, kv_dtype, {}};
  std::copy(extents.begin(), extents.end(), op.shape.begin());
  return op;
}

bool is_communication(OpKind kind) { return kind >= OpKind::all_reduce; }

double flops(const Op& op) {
  std::array<double, kMaxOpDims> s;
  std::copy(op.shape.begin(), op.shape.end(), s.begin());
  switch (op.kind) {
    case OpKind::gemm:
      return 2 * s[0] * s[1] * s[2];
    case OpKind::batched_gemm:
      return 2 * s[0] * s[1] * s[2] * s[3];
    case OpKind::moe:
      return 6 * s[0] * s[4] / s[5] * s[1] * s[2];
    case OpKind::prefill_attention:
      return 4 * s[0] * causal_pairs(s[1], s[2], s[6]) * s[3] * s[5];
    case OpKind::decode_attention:
      return 4 * s[0] * seen(s[1], s[5]) * s[2] * s[4];
    case OpKind::mla_prefill:
      return 2 * s[0] * causal_pairs(s[1], s[2], 0) * s[3] * (s[4] + s[5]);
    case OpKind::mla_decode:
      return 2 * s[0] * s[1] * s[2] * (2 * s[3] + s[4]);
    case OpKind::sparse_mla:
      return 2 * s[0] * s[1] * s[2] * (2 * s[3] + s[4]);
    case OpKind::index_score:
      return 2 * s[0] * causal_pairs(s[1], s[2] - s[1], 0) * s[3] * s[4];
    // State update and read-out: three products with the (k, v) state per token, as the recurrent form has them.
    case OpKind::gated_delta:
      return 6 * s[0] * s[1] * s[3] * s[4] * s[5];
    case OpKind::mamba2:
      return 6 * s[0] * s[1] * s[2] * s[3] * s[4];
    default:
      return 0;
  }
}

double bytes(const Op& op) {
  std::array<double, kMaxOpDims> s;
  std::copy(op.shape.begin(), op.shape.end(), s.begin());
  const double weight = bytes_per_element(op.dtype), act = activation_bytes_per_element(op.dtype);
  const double kv = bytes_per_element(op.kv_dtype);
  constexpr double kOut = 2;  // results leave a kernel in bf16
  switch (op.kind) {
    case OpKind::gemm:
      return s[0] * s[2] * act + s[1] * s[2] * weight + s[0] * s[1] * kOut;
    case OpKind::batched_gemm:
      return s[3] * (s[0] * s[2] * act + s[1] * s[2] * weight + s[0] * s[1] * kOut);
    case OpKind::moe:
      return touched_experts(s[3] / s[5], s[0], s[4], s[3]) * 3 * s[1] * s[2] * weight +
             s[0] * s[4] / s[5] * (s[1] * (act + kOut) + 2 * s[2] * kOut);
    case OpKind::prefill_attention:
      return s[0] *
             (2 * s[1] * s[3] * s[5] * kOut + 2 * seen(s[1] + s[2], s[6] > 0 ? s[6] + s[1] : 0) * s[4] * s[5] * kv);
    case OpKind::decode_attention:
      return s[0] * (2 * s[2] * s[4] * kOut + 2 * seen(s[1], s[5]) * s[3] * s[4] * kv);
    case OpKind::mla_prefill:
      return s[0] * s[3] * (s[1] * (s[4] + s[5]) + (s[1] + s[2]) * (s[4] + s[5])) * kOut;
    case OpKind::mla_decode:
      return s[0] * (s[2] * (2 * s[3] + s[4]) * kOut + s[1] * (s[3] + s[4]) * kv);
    case OpKind::sparse_mla:
      return s[0] * (s[2] * (2 * s[3] + s[4]) * kOut + s[1] * (s[3] + s[4]) * kv);
    case OpKind::index_score:
      return s[0] * (s[2] * s[4] + s[1] * s[3] * s[4]);  // fp8 keys and queries
    // fp32 state read and written once per launch, q k v and output in bf16.
    case OpKind::gated_delta:
      return s[0] * (8 * s[3] * s[4] * s[5] + s[1] * kOut * (2 * s[2] * s[4] + 2 * s[3] * s[5]));
    case OpKind::mamba2:
      return s[0] * (8 * s[2] * s[3] * s[4] + s[1] * kOut * (2 * s[2] * s[3] + 2 * s[5] * s[4]));
    case OpKind::elementwise:
      return s[0] * (s[1] + s[2]);
    case OpKind::all_reduce:
      return 2 * s[0] * (s[1] - 1) / s[1];
    case OpKind::all_gather:
    case OpKind::reduce_scatter:
    case OpKind::all_to_all:
      return s[0] * (s[1] - 1) / s[1];
    case OpKind::send_recv:
      return s[0];
    case OpKind::moe_dispatch:
      return s[0] * s[1] * remote_ranks(s[2], s[4]) * weight;
    case OpKind::moe_combine:
      return s[0] * s[1] * remote_ranks(s[2], s[4]) * kOut;
  }
  return 0;
}

std::string key(const Op& op) {
  std::string text{name(op.kind)};
  text += '/';
  text += name(op.dtype);
  if (op.kv_dtype != op.dtype) (text += '+') += name(op.kv_dtype);
  char separator = '/';
  const auto names = dimension_names(op.kind);
  for (size_t i = 0; i < names.size(); ++i) {
    ((text += separator) += names[i]) += '=';
    text += std::to_string(op.shape[i]);
    separator = ',';
  }
  return text;
}

Op parse_op_key(std::string_view text) {
  const auto fail = [&](std::string_view part, std::string_view want) -> Error {
    return Error("op key '" + std::string(text.substr(0, 200)) + "': '" + std::string(part.substr(0, 60)) +
                 "' is not " + std::string(want));
  };
  const auto cut = [](std::string_view& rest, char at) {
    const size_t end = std::min(rest.find(at), rest.size());
    const std::string_view head = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return head;
  };
  std::string_view rest = text;
  const std::string_view kind_text = cut(rest, '/');
  const auto kind = parse_op_kind(kind_text);
  if (!kind) throw fail(kind_text, "an op kind such as gemm");
  std::string_view dtypes = cut(rest, '/');
  const std::string_view first = cut(dtypes, '+');
  const auto dtype = parse_dtype(first);
  const auto kv_dtype = dtypes.empty() ? dtype : parse_dtype(dtypes);
  if (!dtype || !kv_dtype) throw fail(dtype ? dtypes : first, "a dtype such as fp8");
  Op op{*kind, *dtype, *kv_dtype, {}};
  const auto names = dimension_names(*kind);
  for (size_t i = 0; i < names.size(); ++i) {
    std::string_view value = cut(rest, ',');
    const std::string_view extent_name = cut(value, '=');
    if (extent_name != names[i]) throw fail(extent_name, "'" + std::string(names[i]) + "=...'");
    const auto [end, status] = std::from_chars(value.data(), value.data() + value.size(), op.shape[i]);
    const int64_t least = may_be_zero(names[i]) ? 0 : 1;
    if (status != std::errc{} || end != value.data() + value.size() || op.shape[i] < least)
      throw fail(value, "a whole number >= " + std::to_string(least));
  }
  if (!rest.empty()) throw fail(rest, "expected after the last extent");
  return op;
}

}  // namespace drydock::core
