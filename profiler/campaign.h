#pragma once
// Measures what plans can ask for until predictions are good enough or time is up.
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "perfdb/database.h"
#include "profiler/design.h"
#include "profiler/worker.h"

namespace drydock::profiler {

inline constexpr const char* kBackend = "drydock";  // of the rows and surfaces
inline constexpr const char* kSource = "drydock profile";

struct CampaignOptions {
  double budget_s = 600;       // of wall time, the fit at the end included
  double target_error = 0.05;  // expected |predicted / true - 1| of each family
  StopRule rule;
  double op_limit_s = 20;   // for one op, after which its process is killed
  int64_t most_points = 0;  // 0: no limit
  int batch = 4;            // points of one family between two looks at the others
};

struct Progress {
  std::string op;      // key of the one being measured
  int64_t points = 0;  // so far, those found in the database not counted
  double error = 1;    // expected, over all families by their share of time
  double seconds_left = 0;
};

struct FamilyReport {
  std::string name;
  double weight = 0;  // share of the time of all steps considered
  int64_t candidates = 0, points = 0;
  double error = 1, left_out_error = 0;
  bool met = false;  // the target
};

struct FailedOp {
  std::string op, reason;
};

// Energy of one launch of an op, where the device told.
struct OpEnergy {
  std::string op;
  double us = 0, joules = 0;
};

// How the time of an op of several kernels splits between them.
struct OpParts {
  std::string op;
  std::vector<KernelPart> parts;  // the longest first
};

// all_measured: what remeasure() was asked for. device_lost: it could not be opened again after an op that took it
// down.
enum class Ending : uint8_t { target_met, all_measured, nothing_left, out_of_budget, interrupted, device_lost };

struct CampaignReport {
  Ending ending = Ending::target_met;
  std::string lost;                    // why, one line, when it ended with device_lost
  std::vector<FamilyReport> families;  // heaviest first
  std::vector<FailedOp> failed;        // crashed, hung, out of memory
  std::vector<FailedOp> refused;       // the device has no such kernel or not the memory; the first few of each family
  int64_t points = 0, reused = 0;      // measured now; found in the database
  int64_t surfaces = 0;                // fitted
  int64_t throttled = 0, drifting = 0, bimodal = 0;  // samples dropped; points whose series looked so
  std::vector<OpEnergy> energy;                      // of the ops measured now, the heaviest family first
  std::vector<OpParts> parts;                        // of a few ops of the heaviest families; as far as the budget goes
  std::string no_parts;                              // why some are missing, one line
  double error = 1, seconds = 0;
};

// Where the rows of a device come from; `date` is today, `kernel` what rows say of which the device doesn't tell.
perfdb::Origin origin_of(const Identity& identity, const models::System& system);

// Rows are committed one by one, so that a kill loses the one being measured. Rows of the same origin, whatever their
// date and kernel, count as measured. Families of which five ops in a row fail or are refused are given up. At the end,
// however it comes about, surfaces are fitted to what there is; then a fresh process of `worker` splits ops of several
// kernels. Throws core::Error when the database can't be written or the device is gone for good.
CampaignReport run_campaign(perfdb::Database& database, Worker& worker, const models::System& system,
                            std::vector<Family> families, const CampaignOptions& options,
                            const std::function<void(const Progress&)>& progress, const std::atomic<bool>* stop);

// What measuring an op takes [s], its inputs and warm-up included, when one launch takes `us`.
double seconds_for(const core::Op& op, double us, const StopRule& rule);

// A campaign that has not begun: points each family is likely to take, and the time.
struct Forecast {
  int64_t points = 0;
  double seconds = 0;
};
Forecast forecast(const std::vector<Family>& families, const models::System& system, const CampaignOptions& options);

}  // namespace drydock::profiler
