#pragma once
// What `drydock profile` tells, before and after.
#include <string>
#include <vector>

#include "cli/command.h"
#include "profiler/campaign.h"

namespace drydock::cli {

// What is the same for plan and result.
struct ProfileWork {
  const models::System& system;
  profiler::Identity identity;  // empty when no device was opened
  size_t deployments = 0;
  const std::vector<std::string>& skipped;  // deployments that can't be, one line each
  bool again = false;                       // ops of another database, not what deployments ask for
};

void print_dry_run(const ProfileWork& work, const std::vector<profiler::Family>& families,
                   const profiler::CampaignOptions& options, bool json);
void print_report(const ProfileWork& work, const profiler::CampaignReport& report,
                  const profiler::CampaignOptions& options, const Context& context);

// Why an op was not measured: of the first one that failed or was refused.
std::string first_reason(const profiler::CampaignReport& report);

}  // namespace drydock::cli
