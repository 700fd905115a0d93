#include "simulator/step_time.h"

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
                     const BackendModel& backend)
    : lowering_(architecture, precision, parallelism), times_(&times), backend_(&backend) {}

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
    const double weight = item.count * scale(item.op.kind);
    cost.us += weight * time.latency_us;
    spread[family(item.op.kind)] += weight * (time.high_us - time.low_us) / 2;
  }
  double squares = 0;
  for (const double s : spread) squares += s * s;
  cost.spread_us = std::sqrt(squares);
  if (share != Share::together) cost.us += backend_->layer_us * static_cast<double>(lowering_.stage_layers(stage));
  return cost;
}

}  // namespace drydock::simulator
