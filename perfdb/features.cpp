#include "perfdb/features.h"

#include <algorithm>
#include <cmath>

namespace drydock::perfdb {
namespace {

using core::Hardware;
using core::Op;
using core::OpKind;

struct Efficiency {
  double launch_us;  // fill, drain and dependent phases of one launch
  double memory;     // achieved share of the memory bandwidth
  double compute;    // achieved share of the tensor-core rate
};

// Typical of the kernels engines ship; surfaces correct them wherever there are tables. What has none:
// elementwise streams at 0.8 of the bandwidth (device copy on H200: 4.3 of 4.8 TB/s read + written, small tensors
// less); sparse MLA gathers scattered rows (half the bandwidth); the DSA indexer is a skinny fp8 product plus a top-k
// pass.
Efficiency efficiency(OpKind kind) {
  switch (kind) {
    case OpKind::gemm:
      return {3.0, 0.85, 0.75};
    case OpKind::batched_gemm:
      return {5.0, 0.70, 0.50};
    case OpKind::moe:
      return {15.0, 0.75, 0.40};
    case OpKind::prefill_attention:
      return {10.0, 0.80, 0.45};
    case OpKind::decode_attention:
      return {10.0, 0.70, 0.30};
    case OpKind::mla_prefill:
      return {12.0, 0.75, 0.45};
    case OpKind::mla_decode:
      return {12.0, 0.65, 0.40};
    case OpKind::sparse_mla:
      return {12.0, 0.50, 0.35};
    case OpKind::index_score:
      return {10.0, 0.60, 0.30};
    case OpKind::gated_delta:
      return {8.0, 0.50, 0.15};
    case OpKind::mamba2:
      return {8.0, 0.50, 0.15};
    default:
      return {1.5, 0.80, 1.0};
  }
}

// max(a, b) without the corner: both limits are kept, the crossing is 19 % above.
double smooth_max(double a, double b) {
  const double a2 = a * a, b2 = b * b;
  return std::sqrt(std::sqrt(a2 * a2 + b2 * b2));
}

int64_t group_size(const Op& op) {
  return op.kind == OpKind::moe_dispatch || op.kind == OpKind::moe_combine ? op.shape[4] : op.shape[1];
}

// GPUs that reach one another without the network.
int64_t neighbours(const Hardware& hardware) {
  return std::max<int64_t>(hardware.nvlink_bytes_per_s > 0 ? hardware.nvlink_domain : 1, hardware.gpus_per_node);
}

constexpr double kLinkEfficiency = 0.75;     // nccl-tests bus bandwidth over the link's, large messages
constexpr double kNetworkEfficiency = 0.85;  // RDMA payload over line rate
constexpr double kNeighbourLatencyUs = 4.0;  // flag exchange through peer memory and the launch
constexpr double kHopLatencyUs = 1.0;        // per doubling of the group
constexpr double kNetworkLatencyUs = 12.0;   // NIC to NIC with the proxy thread, one way
constexpr double kNetworkHopUs = 6.0;        // per doubling of the nodes

// Bytes of a group inside one NVLink domain or node.
double local_us(const Op& op, const Hardware& hardware, int64_t group) {
  const double link = kLinkEfficiency * core::link_bytes_per_s(hardware, group);
  return kNeighbourLatencyUs + kHopLatencyUs * std::log2(static_cast<double>(group)) + core::bytes(op) / link * 1e6;
}

// Bytes go around inside the node at the link's rate; what leaves it is shared by the node's GPUs, each with its own
// network port: a reduction crosses once for the whole node, an exchange for each GPU. A transfer of one GPU to its
// peer does not touch the node's links.
double network_us(const Op& op, const Hardware& hardware, int64_t group) {
  const auto local = static_cast<double>(neighbours(hardware));
  const double nodes = std::ceil(static_cast<double>(group) / local);
  const double link = kLinkEfficiency * core::link_bytes_per_s(hardware, neighbours(hardware));
  const double network = kNetworkEfficiency * hardware.network_bytes_per_s;
  const double bytes = core::bytes(op);
  const double latency = kNetworkLatencyUs + kNetworkHopUs * std::log2(nodes) + kHopLatencyUs * std::log2(local);
  switch (op.kind) {
    case OpKind::send_recv:
      return kNetworkLatencyUs + bytes / network * 1e6;
    case OpKind::all_reduce:
    case OpKind::all_gather:
    case OpKind::reduce_scatter:
      return latency + (bytes / link + bytes / local / network) * 1e6;
    default:
      return latency + (bytes / link + bytes * (nodes - 1) / nodes / network) * 1e6;
  }
}

float log2_of(double extent) { return static_cast<float>(std::log2(std::max(extent, 1e-6))); }

// Keys one query sees on average, doubled: equals new_tokens of a whole causal prompt.
double twice_mean_keys(double fresh, double cached) { return fresh + 2 * cached; }

float context_before(double fresh, double cached) { return log2_of(twice_mean_keys(fresh, cached) / fresh); }

int32_t narrow(int64_t extent) { return static_cast<int32_t>(std::min<int64_t>(extent, INT32_MAX)); }

}  // namespace

double baseline_us(const Op& op, const Hardware& hardware) {
  if (core::is_communication(op.kind)) {
    const int64_t group = group_size(op);
    return group <= neighbours(hardware) ? local_us(op, hardware, group) : network_us(op, hardware, group);
  }
  const Efficiency e = efficiency(op.kind);
  const bool in_bf16 = op.dtype == core::Dtype::fp32 || ignores_arithmetic(op.kind);
  const double peak = core::peak_flops_per_s(hardware, in_bf16 ? core::Dtype::bf16 : op.dtype);
  const double memory = core::bytes(op) / (e.memory * hardware.memory_bytes_per_s);
  const double compute = peak > 0 ? core::flops(op) / (e.compute * peak) : 0;
  return e.launch_us + smooth_max(memory, compute) * 1e6;
}

bool ignores_arithmetic(OpKind kind) {
  return kind == OpKind::decode_attention || kind == OpKind::mla_prefill || kind == OpKind::mla_decode;
}

int axis_count(OpKind kind) {
  switch (kind) {
    case OpKind::prefill_attention:
      return 5;
    case OpKind::decode_attention:
    case OpKind::mla_prefill:
      return 4;
    case OpKind::gemm:
    case OpKind::moe:
    case OpKind::mla_decode:
    case OpKind::gated_delta:
    case OpKind::mamba2:
      return 3;
    case OpKind::batched_gemm:
    case OpKind::moe_dispatch:
    case OpKind::moe_combine:
    case OpKind::elementwise:
    case OpKind::all_reduce:
    case OpKind::all_gather:
    case OpKind::reduce_scatter:
    case OpKind::all_to_all:
      return 2;
    default:
      return 0;
  }
}

int context_axis(OpKind kind) {
  return kind == OpKind::prefill_attention || kind == OpKind::mla_prefill ? axis_count(kind) - 1 : -1;
}

Coordinates coordinates(const Op& op) {
  std::array<double, core::kMaxOpDims> s;
  std::copy(op.shape.begin(), op.shape.end(), s.begin());
  switch (op.kind) {
    case OpKind::gemm:
      return {log2_of(s[0]), log2_of(s[1]), log2_of(s[2])};
    case OpKind::batched_gemm:
      return {log2_of(s[0]), log2_of(s[3])};
    case OpKind::moe:
      return {log2_of(s[0] * s[4] / s[3]), log2_of(s[3] / s[5]), log2_of(s[2])};
    case OpKind::prefill_attention:
      return {log2_of(twice_mean_keys(s[1], s[2])), log2_of(s[0] * s[3]), log2_of(s[3] / s[4]), log2_of(s[0]),
              context_before(s[1], s[2])};
    case OpKind::decode_attention:
      return {log2_of(s[1]), log2_of(s[0] * s[3]), log2_of(s[2] / s[3]), log2_of(s[0])};
    case OpKind::mla_prefill:
      return {log2_of(twice_mean_keys(s[1], s[2])), log2_of(s[0] * s[3]), log2_of(s[0]), context_before(s[1], s[2])};
    case OpKind::mla_decode:
      return {log2_of(s[1]), log2_of(s[0]), log2_of(s[2])};
    case OpKind::gated_delta:
      return {log2_of(s[1]), log2_of(s[0]), log2_of(s[3])};
    case OpKind::mamba2:
      return {log2_of(s[1]), log2_of(s[0]), log2_of(s[2])};
    case OpKind::moe_dispatch:
    case OpKind::moe_combine:
      return {log2_of(s[0]), log2_of(s[4])};
    case OpKind::elementwise:
      return {log2_of(s[0]), log2_of(std::max(s[1] + s[2], 1.0))};
    case OpKind::all_reduce:
    case OpKind::all_gather:
    case OpKind::reduce_scatter:
    case OpKind::all_to_all:
      return {log2_of(s[0]), log2_of(s[1])};
    default:
      return {};
  }
}

Variant variant(const Op& op) {
  const auto& s = op.shape;
  switch (op.kind) {
    case OpKind::batched_gemm:
      return {narrow(s[2]), narrow(s[1])};
    case OpKind::moe:
      return {narrow(s[1]), narrow(s[3]), narrow(s[4])};
    case OpKind::prefill_attention:
      return {narrow(s[5]), narrow(s[6])};
    case OpKind::decode_attention:
      return {narrow(s[4]), narrow(s[5])};
    case OpKind::mla_prefill:
      return {narrow(s[4]), narrow(s[5])};
    case OpKind::mla_decode:
      return {narrow(s[3]), narrow(s[4])};
    case OpKind::gated_delta:
      return {narrow(s[4]), narrow(s[5]), s[1] == 1};
    case OpKind::mamba2:
      return {narrow(s[3]), narrow(s[4]), s[1] == 1};
    case OpKind::moe_dispatch:
    case OpKind::moe_combine:
      return {narrow(s[1]), narrow(s[3]), narrow(s[2])};
    default:
      return {};
  }
}

double variant_distance(const Variant& a, const Variant& b) {
  double distance = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    distance += a[i] > 0 && b[i] > 0 ? std::abs(std::log2(static_cast<double>(a[i]) / b[i])) : 3.0;
  }
  return distance;
}

bool spans_network(const Op& op, const Hardware& hardware) {
  return core::is_communication(op.kind) && group_size(op) > neighbours(hardware);
}

}  // namespace drydock::perfdb
