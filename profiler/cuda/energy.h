#pragma once
// Energy of a launch from a counter that moves on about every 100 ms. Host code that needs no GPU.
#include <cstdint>
#include <optional>

namespace drydock::profiler::cuda {

// One stretch of back-to-back launches. What the GPU draws between them is theirs too.
class EnergyWindow {
 public:
  static constexpr double kLeastSeconds = 1;  // so that the counter's step is under a tenth
  void begin(double joules, double seconds) { *this = {joules, seconds}; }
  bool has_begun() const { return begun_; }
  void add(int64_t launches) { launches_ += launches; }
  void stop() { *this = {}; }
  // Of one launch [J], from the readings now; nullopt when the window is too short or the counter stood still.
  std::optional<double> of_one(double joules, double seconds) const {
    if (!begun_ || launches_ == 0 || seconds - seconds_ < kLeastSeconds || joules <= joules_) return std::nullopt;
    return (joules - joules_) / static_cast<double>(launches_);
  }

  EnergyWindow() = default;

 private:
  EnergyWindow(double joules, double seconds) : begun_(true), joules_(joules), seconds_(seconds) {}
  bool begun_ = false;
  double joules_ = 0, seconds_ = 0;
  int64_t launches_ = 0;
};

}  // namespace drydock::profiler::cuda
