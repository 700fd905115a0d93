#pragma once
// Which kernels an op runs and how its time splits between them, by CUPTI's activity records.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace drydock::profiler::cuda {

struct KernelSum {
  std::string name;     // without template arguments and parameters
  double us = 0;        // of one launch of the op; under CUPTI, which adds to it: good for shares only
  double launches = 0;  // of this kernel in one launch of the op
  bool operator==(const KernelSum&) const = default;
};

// One kernel as CUPTI records it.
struct KernelRecord {
  std::string name;  // demangled
  uint64_t begin_ns = 0, end_ns = 0;
};

// Sums of `runs` launches of an op, by name, longest first. Throws core::Error when records lie (end before begin).
std::vector<KernelSum> sums_of(const std::vector<KernelRecord>& records, int runs);

// Runs `launch` `runs` times, with CUPTI on for that long only, and waits for the device. One at a time in a process;
// no other tool may have subscribed. Throws core::Error when CUPTI can't start or has dropped records.
std::vector<KernelSum> name_kernels(const std::function<void()>& launch, int runs);

// "void drydock::kernels::cuda::(anonymous namespace)::f<int, 3>(float*)" -> "f".
std::string short_name(const std::string& demangled);

}  // namespace drydock::profiler::cuda
