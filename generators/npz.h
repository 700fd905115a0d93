#pragma once
// NumPy's archive of arrays, as numpy.load() reads it: a ZIP of .npy files, stored.
// Source of the format: "NEP 1 - A simple file format for NumPy arrays", version 1.0.
#include <string>
#include <variant>
#include <vector>

namespace drydock::generators {

struct NpzArray {
  std::string name;                                                // letters, digits and '_'
  std::variant<std::vector<double>, std::vector<int64_t>> values;  // one dimension, little-endian 64 bits each
};

// The same arrays give the same bytes.
std::string npz(const std::vector<NpzArray>& arrays);

}  // namespace drydock::generators
