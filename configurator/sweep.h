#pragma once
// A sweep: every combination of models, systems, precisions, backends, GPU counts, workloads and targets of a YAML
// file, each one question to the search. docs/fleet.md describes the file.
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "configurator/resources.h"
#include "configurator/search.h"
#include "configurator/yaml_question.h"
#include "core/json.h"

namespace drydock::configurator {

inline constexpr int64_t kMostSweepItems = 1'000'000;

struct Sweep {
  struct Systems {
    NamedLine prefill;  // of workers, too
    NamedLine decode;   // empty text: the same
  };
  struct NamedWorkload {
    std::string name;
    models::Workload workload;
  };
  struct NamedSlo {
    std::string name;
    models::Slo slo;
  };
  std::string origin;  // of the file, for errors
  std::vector<NamedLine> models;
  std::vector<Systems> systems;
  std::vector<std::string> precisions;
  std::vector<std::optional<models::Backend>> backends;  // nullopt: the best of all
  std::vector<int> gpus;
  std::vector<NamedWorkload> workloads;
  std::vector<NamedSlo> slos;
  ModeChoice mode = ModeChoice::both;
  Method method = Method::simulate;
  Goal goal = Goal::throughput_per_gpu;
  std::string kv_precision = "auto";
  std::map<std::string, NamedLine> prices;  // of a GPU and hour, by system, as written

  // Combinations; the last of the lists above turns fastest.
  int64_t items() const;
};

// Throws core::Error naming `origin`, line and field.
Sweep parse_sweep(std::string_view yaml, std::string_view origin);
Sweep read_sweep(const std::filesystem::path& file);

// Looks every model and system up and sets the prices. Throws core::Error naming file and line.
void prepare_sweep(const Sweep& sweep, Resources& resources);

struct SweepItem {
  int64_t index = 0;
  Question question;
  std::string workload, slo;  // names
};
SweepItem sweep_item(const Sweep& sweep, int64_t index);

// Canonical: equal sweeps give equal text, however their files are laid out.
core::Json sweep_json(const Sweep& sweep);
// What answers rest on beside the question: fingerprints of program, database, calibration, and of the files among
// models and systems. Shards of one sweep must agree on it.
core::Json sweep_basis(const Sweep& sweep, std::string_view version, const std::filesystem::path& database,
                       const std::filesystem::path& calibration);

// One of n equal parts of a sweep: every n-th item, so that neighbours, which cost alike, are spread.
struct Shard {
  int64_t k = 1, n = 1;  // k from 1 to n
  bool has(int64_t item) const { return item % n == k - 1; }
  int64_t items(int64_t all) const { return all / n + (all % n >= k ? 1 : 0); }
};
// "2/8". Throws core::Error naming `flag`.
Shard parse_shard(std::string_view text, std::string_view flag);

// The search's answer to one item, as it is stored: fields of docs/schema/sweep.schema.json's `items`. What the search
// refuses is an answer, too.
core::Json sweep_answer(const SweepItem& item, Resources& resources);

}  // namespace drydock::configurator
