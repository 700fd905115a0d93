#pragma once
// Simulated silicon: times from an analytic law with waves, launch floors and noise, and failures on demand.
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "profiler/device.h"

namespace drydock::profiler {

// lost: a crash after which no process can open the device again.
enum class Failure : uint8_t { none, out_of_memory, error, crash, hang, lost };

struct Silicon {
  models::System system;  // under a name that says it is simulated
  uint64_t seed = 1;
  double noise = 0.01;         // standard deviation of a sample, of its mean
  int64_t throttle_every = 0;  // of so many samples the last tenth is throttled and 30 % slower; 0: none is
  struct Fault {
    std::string op;  // part of the op's key
    Failure failure = Failure::none;
  };
  std::vector<Fault> faults;
  // Shared by all processes that are forked after it was made.
  std::shared_ptr<std::atomic<bool>> is_lost;
};

// What `system` says, named as perfdb::simulated_name has it.
Silicon usual_silicon(const models::System& system);

// What the law says of one launch [us]. Deterministic. After what GPUs do: tiles run in waves over the SMs, short k and
// small tiles do not fill the tensor cores, few bytes do not fill the memory bus, a launch has a floor.
double true_us(const core::Op& op, const models::System& system);

class SimulatedDevice : public Device {
 public:
  // Throws core::Error where the silicon is lost.
  explicit SimulatedDevice(Silicon silicon);
  Identity identity() override;
  models::System system() override { return silicon_.system; }
  std::optional<std::string> why_not(const core::Op& op) override;
  std::unique_ptr<Experiment> prepare(const core::Op& op) override;
  // Decoding is "attend" and "combine", a tenth of the time; everything else one kernel, "law".
  std::vector<KernelPart> parts(const core::Op& op) override;

 private:
  Failure failure_of(const core::Op& op) const;
  Silicon silicon_;
};

}  // namespace drydock::profiler
