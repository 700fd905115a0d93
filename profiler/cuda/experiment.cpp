#include "profiler/cuda/experiment.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/error.h"

namespace drydock::profiler::cuda {
namespace {

using Clock = std::chrono::steady_clock;

double now_s() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

// A graph whose size fits what the op takes in a graph; outside of one, short launches look longer than they are.
Contender contend(Candidate candidate) {
  constexpr int kLooks = 3;
  constexpr double kTooShort = 0.8;
  const double rough = rough_us(candidate.lanes, candidate.launch);
  const bool host = candidate.needs_host;
  Replay replay(candidate.lanes, candidate.launch, launches_of(rough, candidate.copies), host);
  double us = replay.run();
  const int64_t wanted = launches_of(us, candidate.copies);
  if (static_cast<double>(replay.launches()) < kTooShort * static_cast<double>(wanted)) {
    Replay longer(candidate.lanes, candidate.launch, wanted, host);
    us = longer.run();
    for (int i = 1; i < kLooks; ++i) us = std::min(us, longer.run());
    return {std::move(candidate), std::move(longer), us};
  }
  for (int i = 1; i < kLooks; ++i) us = std::min(us, replay.run());
  return {std::move(candidate), std::move(replay), us};
}

// Until clocks are up.
void warm_up(Replay& replay) {
  constexpr double kSeconds = 0.03;
  for (const double start = now_s(); now_s() - start < kSeconds;) replay.run();
}

}  // namespace

CudaExperiment::CudaExperiment(std::vector<Candidate> candidates, const Nvml& nvml) : nvml_(nvml) {
  std::string failure = "no kernel to measure";
  for (Candidate& candidate : candidates) {
    const std::vector<Lane> lanes = candidate.lanes;
    try {
      compete(contend(std::move(candidate)));
    } catch (const core::Error& error) {
      // A kernel that can't be captured leaves the field to the others; one that broke the device ends it here.
      wait_for(lanes);
      failure = error.what();
    }
  }
  if (!best_) throw core::Error(failure);
}

void CudaExperiment::compete(Contender next) {
  if (!best_) {
    warm_up(next.replay);
    next.us = next.replay.run();
  }
  if (!best_ || next.us < best_->us) best_ = std::make_unique<Contender>(std::move(next));
}

void CudaExperiment::keep_energy(double seconds) {
  if (energy_.has_begun()) return;
  if (const auto joules = nvml_.joules()) energy_.begin(*joules, seconds);
}

Reading CudaExperiment::sample() {
  if (const int pause = judge_.pause_ms(); pause > 0) {
    energy_.stop();
    std::this_thread::sleep_for(std::chrono::milliseconds(pause));
    best_->replay.run();  // back to speed
  }
  keep_energy(now_s());
  const uint64_t before = nvml_.clock_reasons().value_or(0);
  const double us = best_->replay.run();
  energy_.add(best_->replay.launches());
  return {us, judge_.drops(before, nvml_.clock_reasons().value_or(0))};
}

std::optional<double> CudaExperiment::joules() {
  const auto joules = nvml_.joules();
  return joules ? energy_.of_one(*joules, now_s()) : std::nullopt;
}

std::vector<KernelSum> CudaExperiment::sums(int runs) {
  int64_t turn = 0;
  return name_kernels([&] { best_->candidate.launch(turn++); }, runs);
}

}  // namespace drydock::profiler::cuda
