#pragma once
// How long a step of decode takes at least, as far as the last ones tell.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace drydock::runtime {

class StepForecast {
 public:
  // A step of `sequences` that decoded took `us`.
  void add(double us, int64_t sequences) { last_[next_++ % last_.size()] = {us, sequences}; }

  // The shortest of the last eight, each shortened in proportion where it had more sequences: a step's time grows with
  // its sequences, and no faster than they do. 0: not known.
  double least_us(int64_t sequences) const {
    double least = 0;
    for (size_t i = 0; i < std::min(next_, last_.size()); ++i) {
      const double share = std::min(1.0, static_cast<double>(sequences) / static_cast<double>(last_[i].sequences));
      const double us = last_[i].us * share;
      least = i == 0 ? us : std::min(least, us);
    }
    return least;
  }

 private:
  struct Step {
    double us = 0;
    int64_t sequences = 1;
  };
  std::array<Step, 8> last_{};
  size_t next_ = 0;
};

}  // namespace drydock::runtime
