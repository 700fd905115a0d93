#pragma once
// What an Engine keeps; shared by the files that implement it.
#include <memory>
#include <mutex>
#include <vector>

#include "simulator/serving.h"
#include "simulator/step_table.h"

namespace drydock::simulator {

struct Engine::Impl {
  const models::Architecture& architecture;
  models::Precision precision;
  models::Parallelism parallelism;
  const models::System& system;
  const BackendModel& backend;
  int64_t max_tokens;
  EngineOptions options;
  StepTimer timer;
  models::StageMemory fullest;
  std::vector<double> kv_room;  // per stage [bytes]

  std::mutex mutex;
  std::unique_ptr<StepTable> table;                 // of the workload asked for last
  std::vector<std::unique_ptr<TablePrice>> prices;  // not in use

  StepTable& table_for(const Lengths& lengths);  // call with `mutex` held

  StepOptions step_options() const;
  Lengths lengths_of(const models::Workload& workload) const;  // means
  double fitting(double tokens) const;                         // sequences that hold so much KV each
  std::vector<models::LayerOp> typical_ops(const models::Workload& workload, models::Role phase, double batch) const;
};

}  // namespace drydock::simulator
