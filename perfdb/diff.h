#pragma once
// Two databases of measurements compared: what is in both, what got slower, and whether they may be compared at all.
#include <cstdint>
#include <string>
#include <vector>

#include "perfdb/database.h"
#include "perfdb/shifts.h"

namespace drydock::perfdb {

// One op measured in both.
struct RowDiff {
  core::Op op;
  double base_us = 0, new_us = 0;
  Judgement judgement;
};

// Ops of one kind, formats and implementation on one system.
struct FamilyDiff {
  std::string system, backend, kernel;
  core::OpKind kind{};
  core::Dtype dtype{}, kv_dtype{};
  Judgement judgement;
  std::vector<RowDiff> rows;  // the slowest first
};

struct SystemDiff {
  std::string system;
  MachineJudgement judgement;
};

// A field of the origins that is another in rows to be compared.
struct OriginDifference {
  std::string system, field;  // "gpu", "driver" or "clocks"
  std::string base_text, new_text;
  int64_t rows = 0;
};

struct Diff {
  std::vector<SystemDiff> systems;
  std::vector<FamilyDiff> families;  // those that are slower first, each part by falling change
  std::vector<Measurement> only_base, only_new;
  std::vector<OriginDifference> differences;  // not empty: the times tell of these, not of kernels
  int64_t paired = 0;
  bool slower = false;  // a system, a family or a row
};

// Pairs rows by op, system, backend and, but for backend "drydock", which takes the fastest one, kernel. Of several
// rows of one database, campaigns of other days or versions, the one of the latest date counts, as for a look-up.
// `threshold`: as judge_shifts has it. Throws core::Error on a row that no measurement can be.
Diff diff(const Database& base, const Database& now, double threshold);

// "gemm/fp8", "decode_attention/bf16+fp8": what the keys of its ops begin with.
std::string op_name(const FamilyDiff& family);

}  // namespace drydock::perfdb
