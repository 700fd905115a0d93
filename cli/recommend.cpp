#include <CLI/CLI.hpp>
#include <memory>

#include "cli/question.h"

namespace drydock::cli {
namespace {

void add(CLI::App& app, Context& context, const char* name, const char* what, const char* example, const char* gpus,
         configurator::Goal goal) {
  CLI::App* command = app.add_subcommand(name, what);
  const auto options = std::make_shared<QuestionOptions>();
  add_question(*command, *options, gpus);
  add_common(*command, context);
  command->footer(example);
  command->callback([=, &context] {
    configurator::Resources resources(context.database, context.calibration);
    configurator::Question question = question_of(*options, resources);
    question.goal = goal;
    context.exit_code = answer(*options, question, resources, context, name);
  });
}

}  // namespace

void add_recommend(CLI::App& app, Context& context) {
  add(app, context, "recommend", "the best deployments on a number of GPUs",
      "Example:\n  drydock recommend --model Qwen/Qwen3-32B --precision fp8 --system h200_sxm --gpus 16 \\\n"
      "    --backend trtllm --isl 4000 --osl 1000 --ttft 1000 --tpot 20 --out deployment",
      "8", configurator::Goal::throughput_per_gpu);
}

void add_size(CLI::App& app, Context& context) {
  add(app, context, "size", "the fewest GPUs that serve a rate or a concurrency",
      "Example:\n  drydock size --model Qwen/Qwen3-32B --precision fp8 --system h200_sxm --backend trtllm \\\n"
      "    --isl 4000 --osl 1000 --ttft 1s --tpot 20 --rate 20",
      "256", configurator::Goal::fewest_gpus);
}

}  // namespace drydock::cli
