#include "tests/layers.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <regex>
#include <set>

namespace drydock::tests {
namespace {

namespace fs = std::filesystem;

// folder -> folders it may include, beside itself
const std::map<std::string, std::set<std::string>> kMay = {
    {"core", {}},
    {"models", {"core"}},
    {"perfdb", {"core"}},
    {"kernels", {"core"}},
    {"scheduler", {"core"}},
    {"simulator", {"scheduler", "models", "perfdb", "core"}},
    {"profiler", {"kernels", "models", "perfdb", "core"}},
    {"generators", {"models", "core"}},
    {"runtime", {"scheduler", "kernels", "simulator", "models", "core"}},
    {"configurator", {"simulator", "generators", "perfdb", "models", "core"}},
    {"cli",
     {"core", "models", "perfdb", "kernels", "scheduler", "simulator", "profiler", "generators", "runtime",
      "configurator"}},
};

std::string allowed(const std::string& folder) {
  std::string out;
  for (const std::string& other : kMay.at(folder)) out += (out.empty() ? "" : ", ") + other;
  return folder + " may use " + (out.empty() ? "nothing" : out);
}

bool breaks(const std::string& folder, const std::string& used) {
  return used != folder && kMay.contains(used) && !kMay.at(folder).contains(used);
}

void check_line(const std::string& folder, const std::string& where, const std::string& line, const std::regex& use,
                const char* verb, std::vector<std::string>& out) {
  for (std::sregex_iterator it(line.begin(), line.end(), use), end; it != end; ++it)
    if (const std::string used = (*it)[1]; breaks(folder, used))
      out.push_back(where + " " + verb + " " + used + ": " + allowed(folder));
}

void check_file(const std::string& folder, const fs::path& root, const fs::path& file, std::vector<std::string>& out) {
  static const std::regex kInclude("^\\s*#\\s*include\\s*[<\"]([a-z_]+)/");
  static const std::regex kLink("drydock(?:::|_)([a-z]+)");
  const bool cmake = file.filename() == "CMakeLists.txt";
  std::ifstream in(file);
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    const std::string where = fs::relative(file, root).string() + ":" + std::to_string(number);
    check_line(folder, where, line, cmake ? kLink : kInclude, cmake ? "links" : "includes", out);
  }
}

bool is_source(const fs::path& file) {
  static const std::set<std::string> kEndings = {".h", ".cpp", ".cu", ".cuh"};
  return kEndings.contains(file.extension().string()) || file.filename() == "CMakeLists.txt";
}

}  // namespace

std::vector<std::string> layer_breaches(const fs::path& root) {
  std::vector<std::string> out;
  for (const auto& [folder, may] : kMay) {
    if (!fs::is_directory(root / folder)) continue;
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder))
      if (entry.is_regular_file() && is_source(entry.path())) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) check_file(folder, root, file, out);
  }
  return out;
}

}  // namespace drydock::tests
