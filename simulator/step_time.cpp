#include "simulator/step_time.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace drydock::simulator {
namespace {

// Ops whose table errors move together.
enum Family { kGemm, kAttention, kMoe, kCommunication, kSmall, kFamilies };

Family family(core::OpKind kind) {
  using enum core::OpKind;
  if (core::is_communication(kind)) return kCommunication;
  switch (kind) {
    case gemm:
    case batched_gemm:
      return kGemm;
    case moe:
      return kMoe;
    case elementwise:
      return kSmall;
    default:
      return kAttention;
  }
}

bool holds_prompt(models::Batch batch) {
  return std::any_of(batch.begin(), batch.end(),
                     [](const models::BatchPart& part) { return !part.is_decode && part.sequences > 0; });
}

bool is_together(models::Module module) {
  return module == models::Module::experts || module == models::Module::communication;
}

}  // namespace

StepCost& StepCost::operator+=(const StepCost& other) {
  us += other.us;
  spread_us += other.spread_us;
  return *this;
}

StepCost& StepCost::operator*=(double factor) {
  us *= factor;
  spread_us *= factor;
  return *this;
}

StepTimer::StepTimer(const models::Architecture& architecture, const models::Precision& precision,
                     const models::Parallelism& parallelism, const perfdb::KernelTimes& times,
                     const BackendModel& backend, const ExpertLoad* experts)
    : lowering_(architecture, precision, parallelism), times_(&times), backend_(&backend), experts_(experts) {}

// Between the scales of arithmetic and of memory as the roofline divides the op's time between them.
double StepTimer::scale(const core::Op& op) const {
  double family_scale = scale(op.kind);
  if (op.kind == core::OpKind::moe) {
    constexpr double kHalf = 64;
    const double each = static_cast<double>(op.shape[0] * op.shape[4]) / static_cast<double>(op.shape[3]);
    family_scale *= std::pow(backend_->moe_many, each / (each + kHalf));
    if (op.dtype == core::Dtype::fp8_block && times_->hardware().architecture == "hopper")
      family_scale *= backend_->moe_fp8_block;
    if (experts_) family_scale *= experts_->busiest_share(static_cast<double>(op.shape[0]));
  }
  if ((backend_->compute == 1 && backend_->bandwidth == 1) || core::is_communication(op.kind)) return family_scale;
  const core::Hardware& hardware = times_->hardware();
  const double arithmetic = core::flops(op) / core::peak_flops_per_s(hardware, op.dtype);
  const double memory = core::bytes(op) / hardware.memory_bytes_per_s;
  const double share = arithmetic + memory > 0 ? arithmetic / (arithmetic + memory) : 0;
  return family_scale * std::pow(backend_->compute, share) * std::pow(backend_->bandwidth, 1 - share);
}

double StepTimer::scale(core::OpKind kind) const {
  switch (family(kind)) {
    case kGemm:
      return backend_->gemm;
    case kAttention:
      return backend_->attention;
    case kMoe:
      return backend_->moe;
    case kCommunication:
      return backend_->communication;
    default:
      return 1;
  }
}

// Errors of ops of one family are taken as fully correlated, those of different families as independent.
StepCost StepTimer::stage(models::Batch batch, int stage, Scratch& scratch, Share share) const {
  lowering_.lower(batch, stage, scratch);
  StepCost cost;
  std::array<double, kFamilies> spread{};
  for (const models::LayerOp& item : scratch) {
    if (share != Share::all && is_together(item.module) != (share == Share::together)) continue;
    const perfdb::KernelTime time = times_->of(item.op);
    const double weight = item.count * scale(item.op);
    cost.us += weight * time.latency_us;
    if (core::is_communication(item.op.kind)) cost.us += item.count * backend_->collective_us;
    spread[family(item.op.kind)] += weight * (time.high_us - time.low_us) / 2;
  }
  double squares = 0;
  for (const double s : spread) squares += s * s;
  cost.spread_us = std::sqrt(squares);
  if (holds_prompt(batch)) cost *= backend_->prompt_kernels;
  if (share != Share::together)
    cost.us += backend_->layer_gap_us() * static_cast<double>(lowering_.stage_layers(stage));
  return cost;
}

StepTimer::Parts StepTimer::parts(models::Batch batch, int stage, Scratch& scratch) const {
  lowering_.lower(batch, stage, scratch);
  Parts out;
  for (const models::LayerOp& item : scratch) {
    double us = item.count * scale(item.op) * times_->of(item.op).latency_us;
    if (core::is_communication(item.op.kind)) us += item.count * backend_->collective_us;
    switch (item.module) {
      case models::Module::attention:
        out.attention += us;
        break;
      case models::Module::head:
        out.head += us;
        break;
      case models::Module::experts:
        out.experts += us;
        break;
      case models::Module::shared_expert:
        out.shared_expert += us;
        break;
      case models::Module::communication:
        out.exchange += us;
        break;
      default:
        out.own += us;
    }
  }
  return out;
}

}  // namespace drydock::simulator
