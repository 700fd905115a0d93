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

double StepTimer::scale(const core::Op& op) const { return scale(term_of(op)); }

StepTimer::Term StepTimer::term_of(const core::Op& op) const {
  Term out;
  out.kind = op.kind;
  out.communicates = core::is_communication(op.kind);
  const core::Hardware& hardware = times_->hardware();
  if (op.kind == core::OpKind::moe) {
    out.each = static_cast<double>(op.shape[0] * op.shape[4]) / static_cast<double>(op.shape[3]);
    out.old_experts = op.dtype == core::Dtype::fp8_block && hardware.architecture == "hopper";
    if (experts_) out.busiest = experts_->busiest_share(static_cast<double>(op.shape[0]));
  }
  if (out.communicates) return out;
  const double arithmetic = core::flops(op) / core::peak_flops_per_s(hardware, op.dtype);
  const double memory = core::bytes(op) / hardware.memory_bytes_per_s;
  out.arithmetic = arithmetic + memory > 0 ? arithmetic / (arithmetic + memory) : 0;
  return out;
}

// Between the scales of arithmetic and of memory as the roofline divides the op's time between them.
double StepTimer::scale(const Term& t) const {
  double out = scale(t.kind);
  if (t.kind == core::OpKind::moe) {
    constexpr double kHalf = 64;
    if (backend_->moe_many != 1) out *= std::pow(backend_->moe_many, t.each / (t.each + kHalf));
    if (t.old_experts) out *= backend_->moe_fp8_block;
    out *= t.busiest;
  }
  if ((backend_->compute == 1 && backend_->bandwidth == 1) || t.communicates) return out;
  return out * std::pow(backend_->compute, t.arithmetic) * std::pow(backend_->bandwidth, 1 - t.arithmetic);
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
  Terms all;
  terms(batch, stage, scratch, all);
  return priced(all);
}

void StepTimer::terms(models::Batch batch, int stage, Scratch& scratch, Terms& out) const {
  lowering_.lower(batch, stage, scratch);
  out.clear();
  out.reserve(scratch.size());
  for (const models::LayerOp& item : scratch) {
    Term t = term_of(item.op);
    t.module = item.module;
    t.count = item.count;
    t.latency_us = times_->of(item.op).latency_us;
    out.push_back(t);
  }
}

StepTimer::Parts StepTimer::priced(const Terms& terms) const {
  Parts out;
  for (const Term& t : terms) {
    double us = t.count * scale(t) * t.latency_us;
    if (t.communicates) us += t.count * backend_->collective_us;
    switch (t.module) {
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
