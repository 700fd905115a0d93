#pragma once
// The options that ask for a deployment, shared by recommend and size.
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/plan_flags.h"
#include "configurator/search.h"

namespace drydock::cli {

// As typed; checked when the command runs, so that every error is one line naming its flag.
struct QuestionOptions {
  std::string model, system, decode_system, precision = "auto", kv_precision = "auto", backend = "auto", mode = "both";
  std::string gpus = "8", isl, osl, prefix_hit = "0", rate, concurrency, ttft, tpot, request_latency, price, top = "5",
              percentile = "p95", method = "simulate", out, report;
  std::vector<std::string> targets, settings;
  bool force = false;
  PlanFlags plan;
  bool all = false;
};

// "simulate" or "analytic". Throws core::Error naming --method.
configurator::Method parse_method(const std::string& text);

void add_question(CLI::App& command, QuestionOptions& options, const char* gpus_default);

// Throws core::Error naming the flag. --price replaces the systems' own in `resources`.
configurator::Question question_of(const QuestionOptions& options, configurator::Resources& resources);

// Prints the answer (or its JSON), writes the files of --out and the page of --report, and returns the exit code.
int answer(const QuestionOptions& options, const configurator::Question& question, configurator::Resources& resources,
           const Context& context, std::string_view command);

}  // namespace drydock::cli
