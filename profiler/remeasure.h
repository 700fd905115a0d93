#pragma once
// The ops of an earlier campaign measured again, so that two databases can be compared op by op.
#include <atomic>
#include <functional>
#include <vector>

#include "perfdb/database.h"
#include "profiler/campaign.h"

namespace drydock::profiler {

// Goes through `ops` `rounds` times, in their order; each keeps the row with the lowest median, as what slows one round
// of several down, another process or a lower clock, is not the kernel. `options`: budget, rule and limit of an op.
// Rows are committed as they come. Of the report `points` counts ops with a row; there are no surfaces, and families
// have a share of the measured time but no errors. Throws core::Error when the database can't be written.
CampaignReport remeasure(perfdb::Database& database, Worker& worker, const models::System& system,
                         const std::vector<core::Op>& ops, int rounds, const CampaignOptions& options,
                         const std::function<void(const Progress&)>& progress, const std::atomic<bool>* stop);

// Ops that `base` has rows of, of backend kBackend and `system`.
std::vector<core::Op> measured_ops(const perfdb::Database& base, const std::string& system);

}  // namespace drydock::profiler
