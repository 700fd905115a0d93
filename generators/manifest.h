#pragma once
// All files of one generation: what they are, written together or not at all, and held against a plan later.
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "generators/target.h"

namespace drydock::generators {

// Files of all these targets, and after them manifest.json and README.md. Throws core::Error on an unknown target or
// setting, suggesting the nearest; when two targets want one path; or when a target can't express the plan.
std::vector<OutputFile> generate(const Request& request, const std::vector<std::string>& targets);

// Throws core::Error naming the first of `files` that is in `dir` already, with other content, unless `force`; checked
// before the first is written. Each file is written whole and renamed, manifest.json last.
void write_files(const std::vector<OutputFile>& files, const std::filesystem::path& dir, bool force);

// What a folder's files were made with.
struct Manifest {
  std::vector<std::string> targets;
  std::map<std::string, std::string> settings;
  std::string command;
};
Manifest read_manifest(const std::filesystem::path& dir);

// A value that is not as the plan has it.
struct Drift {
  std::string file, where;  // "decode.yaml", "max-num-seqs"; empty: the whole file
  std::string expected, found;
};
// Compares files as they should be with those in `dir`, JSON and YAML value by value, scripts line by line; comments at
// the head, which name program and plan, aside.
std::vector<Drift> drift(const std::vector<OutputFile>& files, const std::filesystem::path& dir);

}  // namespace drydock::generators
