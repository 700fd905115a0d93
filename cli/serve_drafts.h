#pragma once
// What drafts in the workers of `drydock serve` whose engines compute: n-gram look-up, or a smaller model.
#include <cstdint>
#include <optional>
#include <string>

#include "runtime/cpu_engine.h"
#include "runtime/drafts.h"
#include "runtime/local_fleet.h"
#include "runtime/text_codec.h"
#include "scheduler/speculation.h"

namespace drydock::cli {

struct DraftModel {
  std::string path;
  int64_t longest = 0;         // sequence [tokens]
  int64_t kv_block_bytes = 0;  // of a block of models::kKvBlockTokens
};

// What has to hold before anything is made, each in one line of core::Error: the engine can draft by the plan's method
// (`plan`: the file, in errors), a draft model's folder is given where one drafts and nowhere else, and its vocabulary
// is the target's. `path` empty: none was given. `random_weights`: nothing but config.json is needed there.
struct DraftRequest {
  std::string plan, engine, path, target_path;
  scheduler::Speculation speculation;
  core::Dtype dtype = core::Dtype::bf16;
  bool random_weights = false;
};
// nullopt: n-gram look-up drafts. `codec`: the target's.
std::optional<DraftModel> check_drafts(const DraftRequest& request, const runtime::TextCodec& codec);

// Has the worker draft by look-up.
void draft_by_look_up(runtime::LocalWorker& worker);
// Has it draft by a model, whose engine is made after the worker's own.
void draft_by_model(runtime::LocalWorker& worker, runtime::EngineMaker model,
                    const runtime::ModelDraftOptions& options);

}  // namespace drydock::cli
