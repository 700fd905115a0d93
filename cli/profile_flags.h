#pragma once
// What the flags of `drydock profile` say. All throw core::Error naming flag and value.
#include <string>
#include <vector>

#include "profiler/simulated_device.h"

namespace drydock::cli {

std::vector<std::string> profile_words(const std::string& list, const char* flag);  // "a,b,c"
std::vector<int> profile_sizes(const std::string& list, const char* flag);          // "1,2,4"
double profile_seconds(const std::string& text, const char* flag);                  // "90", "90s", "3m", "1.5h"
double profile_share(const std::string& text, const char* flag, double most);       // "5%" or "0.05"
profiler::Silicon::Fault profile_fault(const std::string& text);                    // "PART-OF-AN-OP=crash"

}  // namespace drydock::cli
