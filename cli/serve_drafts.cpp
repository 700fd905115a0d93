#include "cli/serve_drafts.h"

#include <filesystem>
#include <mutex>

#include "core/error.h"
#include "models/plan.h"
#include "runtime/drafts.h"
#include "runtime/tokenizer.h"
#include "runtime/weight_source.h"

namespace drydock::cli {
namespace {

namespace rt = runtime;
using scheduler::DraftMethod;

// Of one worker, and of the one that takes its place when it fails: what is left of the old one may still say which
// sequences have ended.
struct SharedDrafter {
  std::mutex mutex;
  std::unique_ptr<rt::Drafter> drafter;
};

void check_vocabulary(const DraftRequest& r, const rt::ModelConfig& draft, const rt::TextCodec& codec) {
  const rt::ModelConfig target = rt::read_model_config(r.target_path);
  if (draft.vocabulary != target.vocabulary)
    throw core::Error("--draft-model-path " + r.path + ": its vocab_size is " + std::to_string(draft.vocabulary) +
                      "; want the target's " + std::to_string(target.vocabulary));
  const auto has_tokenizer = [](const std::string& folder) {
    return std::filesystem::exists(std::filesystem::path(folder) / "tokenizer.json");
  };
  if (!has_tokenizer(r.path) || !has_tokenizer(r.target_path)) return;
  const auto own = rt::load_tokenizer(r.path);
  for (rt::Token token = 0; token < target.vocabulary; ++token)
    if (own->bytes(token) != codec.bytes(token))
      throw core::Error("--draft-model-path " + r.path + ": its tokenizer.json has another token " +
                        std::to_string(token) + " than the target's; want a model of the same vocabulary");
}

}  // namespace

std::optional<DraftModel> check_drafts(const DraftRequest& r, const rt::TextCodec& codec) {
  const DraftMethod method = r.speculation.method;
  const std::string field = r.plan + ": field 'speculative': ";
  if (method != DraftMethod::ngram && method != DraftMethod::draft)
    throw core::Error(field + "engine " + r.engine + " drafts by ngram or draft, such as ngram:k=4,p=0.6, not by " +
                      std::string(scheduler::name(method)));
  if (method == DraftMethod::ngram) {
    if (!r.path.empty())
      throw core::Error("--draft-model-path: the plan drafts by ngram; want draft in its field 'speculative'");
    return std::nullopt;
  }
  if (r.path.empty()) throw core::Error(field + "a model drafts; want --draft-model-path with its folder");
  const rt::ModelConfig config = rt::read_model_config(r.path);
  check_vocabulary(r, config, codec);
  if (!r.random_weights) rt::checkpoint_weights(r.path);
  return DraftModel{r.path, config.longest, rt::kv_block_bytes(r.path, r.dtype, models::kKvBlockTokens)};
}

void draft_by_look_up(rt::LocalWorker& worker) {
  const std::shared_ptr<rt::Drafter> drafter = rt::make_ngram_drafter({});
  worker.spec.drafts = [drafter](std::span<const rt::DraftQuestion> q) { return drafter->propose_all(q); };
}

void draft_by_model(rt::LocalWorker& worker, rt::EngineMaker model, const rt::ModelDraftOptions& options) {
  const auto shared = std::make_shared<SharedDrafter>();
  worker.spec.drafts = [shared](std::span<const rt::DraftQuestion> questions) {
    const std::scoped_lock lock(shared->mutex);
    return shared->drafter->propose_all(questions);
  };
  worker.spec.forget_drafts = [shared](rt::Attempt attempt) {
    const std::scoped_lock lock(shared->mutex);
    if (shared->drafter) shared->drafter->forget(attempt);
  };
  worker.engine = [shared, options, target = std::move(worker.engine), model = std::move(model)] {
    {
      const std::scoped_lock lock(shared->mutex);
      shared->drafter.reset();
    }
    auto engine = target();
    auto drafter = rt::make_model_drafter(model(), options);
    const std::scoped_lock lock(shared->mutex);
    shared->drafter = std::move(drafter);
    return engine;
  };
}

}  // namespace drydock::cli
