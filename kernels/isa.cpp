#include "kernels/isa.h"

#include <string>
#include <string_view>

#include "core/error.h"
#include "kernels/cpu.h"

namespace drydock::kernels::cpu {

namespace baseline {
const Isa& table();
}
#if defined(DRYDOCK_X86)
namespace avx2 {
const Isa& table();
}
namespace avx512 {
const Isa& table();
}
namespace avx512bf16 {
const Isa& table();
}
#endif

namespace {

// What isa_*.cpp are built with (CMakeLists.txt), and nothing less, must be there.
const Isa* find(std::string_view name) {
#if defined(DRYDOCK_X86)
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("fma");
  if (name == "avx512bf16" && avx512 && __builtin_cpu_supports("avx512bf16")) return &avx512bf16::table();
  if (name == "avx512" && avx512) return &avx512::table();
  if (name == "avx2" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &avx2::table();
#endif
  return name == "baseline" ? &baseline::table() : nullptr;
}

const Isa* best() {
  for (const char* name : {"avx512bf16", "avx512", "avx2"})
    if (const Isa* found = find(name)) return found;
  return find("baseline");
}

const Isa*& chosen() {
  static const Isa* isa = best();
  return isa;
}

}  // namespace

const Isa& isa() { return *chosen(); }

const char* instruction_set() { return isa().name; }

bool use_instruction_set(std::string_view name) {
  const Isa* found = find(name);
  if (found != nullptr) chosen() = found;
  return found != nullptr;
}

}  // namespace drydock::kernels::cpu
