#pragma once
// Which groups of kernels, of a table measured twice, got slower by more than the noise between two runs. The method,
// its constants and its error rates are in docs/perfdb.md, "Comparing two databases".
#include <cstddef>
#include <string_view>
#include <vector>

namespace drydock::perfdb {

// One op measured in both runs.
struct RowShift {
  double log_ratio = 0;       // ln(new / base) of the medians
  double standard_error = 0;  // of log_ratio, from both runs' spreads; 0: not known
};

// Ops that share their code, so that they get slower together.
struct FamilyRows {
  size_t machine = 0;  // index of what was measured together and drifts together
  std::vector<RowShift> rows;
};

enum class Verdict { unchanged, slower, faster };
std::string_view name(Verdict verdict);

struct Judgement {
  double log_ratio = 0;     // as measured
  double beyond_drift = 0;  // what is judged: log_ratio without the machine's drift
  double noise = 0;         // standard deviation that beyond_drift has between runs of the same code
  double slower_rate = 1;   // false discovery rate at which it counts as slower,
  double faster_rate = 1;   // or as faster
  Verdict verdict{};
};

// What the table itself says of the noise between two runs, all as standard deviations of ln(new / base).
struct MachineJudgement {
  Judgement all;     // of every family alike; beyond_drift is log_ratio here
  double drift = 0;  // taken out of the families and rows; 0 where there are too few families
  double between_families = 0, between_rows = 0;
};

struct ShiftJudgement {
  std::vector<MachineJudgement> machines;
  std::vector<Judgement> families;           // in the order given
  std::vector<std::vector<Judgement>> rows;  // of each family, in the order given
  bool slower() const;                       // anything
};

// `threshold`: smallest share that counts, 0.03 for 3 %. A family has at least one row, a machine at least one family.
ShiftJudgement judge_shifts(const std::vector<FamilyRows>& families, size_t machines, double threshold);

}  // namespace drydock::perfdb
