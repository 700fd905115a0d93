#include <algorithm>

#include "core/error.h"
#include "profiler/cuda/cupti.h"

namespace drydock::profiler::cuda {

std::string short_name(const std::string& demangled) {
  // The name ends where its template arguments or parameters begin, and starts behind the last space or :: before.
  std::string text = demangled;
  for (const std::string hidden : {"(anonymous namespace)::", "<unnamed>::"})
    for (size_t at = text.find(hidden); at != std::string::npos; at = text.find(hidden)) text.erase(at, hidden.size());
  const size_t end = std::min(text.find('<'), text.find('('));
  text = text.substr(0, end);
  const size_t start = text.find_last_of(" :");
  return start == std::string::npos ? text : text.substr(start + 1);
}

std::vector<KernelSum> sums_of(const std::vector<KernelRecord>& records, int runs) {
  std::vector<KernelSum> out;
  for (const KernelRecord& record : records) {
    if (record.end_ns <= record.begin_ns)
      throw core::Error("CUPTI: " + record.name.substr(0, 80) + " ends before it begins; the records can't be used");
    const std::string name = short_name(record.name);
    auto part = std::find_if(out.begin(), out.end(), [&](const KernelSum& p) { return p.name == name; });
    if (part == out.end()) part = out.insert(out.end(), KernelSum{name, 0, 0});
    part->us += static_cast<double>(record.end_ns - record.begin_ns) / 1e3 / runs;
    part->launches += 1.0 / runs;
  }
  std::stable_sort(out.begin(), out.end(), [](const KernelSum& x, const KernelSum& y) { return x.us > y.us; });
  return out;
}

}  // namespace drydock::profiler::cuda
