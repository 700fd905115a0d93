#pragma once
// The queue of a closed loop in front of one engine instance, followed request by request in the mean-field of its
// batch.
#include <cstdint>

#include "simulator/step_table.h"

namespace drydock::simulator {

// How the load is made: `prompts` requests in all, `concurrency` of them in flight, all first ones at once; the next
// one `gap_us` on average, uniform in [0, 2] of it, after an answer is complete. Output lengths uniform in [shortest,
// longest] tokens.
struct ClosedLoop {
  double concurrency = 1;
  double prompts = 10;
  double slots = 1;  // sequences the instance can run at once
  double shortest_output = 1, longest_output = 1;
  double gap_us = 1000;
  int bundles = 64;  // requests followed one by one; above that each stands for several
};

// Means over all requests.
struct LoopTimes {
  double ttft_us = 0;     // from arrival to the end of the step that makes the first token
  double tpot_us = 0;     // from there to the last token, per token
  double seconds = 0;     // from the first arrival to the last answer
  double running = 0;     // sequences in the batch, averaged over time
  double latency_us = 0;  // from arrival to the last token
};

// Deterministic.
LoopTimes follow(StepTable& table, Admission admission, const ClosedLoop& loop);

}  // namespace drydock::simulator
