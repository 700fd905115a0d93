#pragma once
// Alerts when users are served worse than the plan promises: how fast the error budget of its targets burns, seen over
// a long and a short window together, and signs that the plan's assumptions do not hold.
// Source of windows and rates: "The Site Reliability Workbook", chapter 5, "Multiwindow, Multi-Burn-Rate Alerts".
#include "generators/target.h"

namespace drydock::generators {

extern const Target kAlerts;

}  // namespace drydock::generators
