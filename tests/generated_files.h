#pragma once
// What tests ask of generated files: where one is, and what a shell makes of it.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "generators/target.h"
#include "tests/run.h"

namespace drydock::tests {

inline const generators::OutputFile* find_file(const std::vector<generators::OutputFile>& files,
                                               const std::string& path) {
  for (const generators::OutputFile& file : files)
    if (file.path == path) return &file;
  return nullptr;
}

inline bool has_program(const char* name) {
  return std::system((std::string("command -v ") + name + " >/dev/null 2>&1").c_str()) == 0;
}

// Without the sync to disk of core::write_file, which takes longer than all else here.
inline void put(const Scratch& folder, const std::string& name, const std::string& text) {
  const std::filesystem::path path = folder.path() / name;
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

// Runs `command` in `folder`; whether it succeeded.
inline bool runs(const Scratch& folder, const std::string& command) {
  return std::system(("cd '" + folder.path().string() + "' && { " + command + " ; }").c_str()) == 0;
}

}  // namespace drydock::tests
