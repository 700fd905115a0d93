#pragma once
// What a router can know of a worker's prefix cache without asking: the blocks it has sent there lately.
#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>

namespace drydock::runtime {

class PrefixIndex {
 public:
  explicit PrefixIndex(int64_t most_blocks = 0) : most_(most_blocks) {}

  // Blocks of `names`, from the first on, that the worker should have.
  int64_t matches(std::span<const uint64_t> names) const {
    int64_t count = 0;
    for (const uint64_t name : names) {
      if (!places_.contains(name)) break;
      ++count;
    }
    return count;
  }

  // The worker has computed these; those not used for longest go when there are too many.
  void add(std::span<const uint64_t> names) {
    for (const uint64_t name : names) {
      const auto [at, fresh] = places_.try_emplace(name);
      if (!fresh) order_.erase(at->second);
      at->second = order_.insert(order_.end(), name);
    }
    while (static_cast<int64_t>(order_.size()) > most_) {
      places_.erase(order_.front());
      order_.pop_front();
    }
  }

 private:
  int64_t most_;
  std::list<uint64_t> order_;
  std::unordered_map<uint64_t, std::list<uint64_t>::iterator> places_;
};

}  // namespace drydock::runtime
