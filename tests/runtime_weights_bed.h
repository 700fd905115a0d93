#pragma once
// Weights of a model in blocks of a test's own kind of memory.
#include <cstddef>
#include <vector>

#include "runtime/weights.h"

namespace drydock::tests {

// `Block` is made with its bytes and has data().
template <typename Block>
class BlockWeights : public runtime::WeightMemory {
 public:
  void* put(size_t bytes, const std::function<void(std::byte*)>& write) override {
    blocks_.emplace_back(bytes);
    write(blocks_.back().data());
    return blocks_.back().data();
  }

 private:
  std::vector<Block> blocks_;
};
using HeapWeights = BlockWeights<std::vector<std::byte>>;

}  // namespace drydock::tests
