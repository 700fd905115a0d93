// The drydock command: parses, asks the libraries, prints.
#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>

#include "cli/command.h"
#include "core/error.h"
#include "core/text.h"

namespace {

using namespace drydock;

// Control characters of an argument would break the one line.
std::string printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  return text;
}

// CLI11's words in one line; an unknown flag or command gets the nearest known one.
std::string one_line(const CLI::App& app, const CLI::ParseError& error) {
  const std::string what = printable(error.what());
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  const auto rest = at->remaining();
  // A mistyped command is reported as a missing one, with the word among the rest.
  const bool unknown = dynamic_cast<const CLI::ExtrasError*>(&error) || dynamic_cast<const CLI::RequiredError*>(&error);
  if (!unknown || rest.empty()) return what;
  const std::string first = printable(rest.front());
  std::vector<std::string> known;
  if (first.starts_with("-")) {
    for (const CLI::Option* option : at->get_options())
      known.push_back("--" + (option->get_lnames().empty() ? "" : option->get_lnames().front()));
  } else {
    for (const CLI::App* command : at->get_subcommands([](const CLI::App*) { return true; }))
      known.push_back(command->get_name());
  }
  return "'" + first.substr(0, 80) + "' is not known" + core::suggestion(first, known) +
         (at == &app ? "" : " (drydock " + at->get_name() + " --help lists them)");
}

int run(int argc, char** argv) {
  cli::Context context;
  context.arguments = {"drydock"};
  for (int i = 1; i < argc; ++i) context.arguments.emplace_back(argv[i]);
  CLI::App app{"Drydock: which deployment of a large language model meets a service level at the lowest cost",
               "drydock"};
  app.set_version_flag("--version", DRYDOCK_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Example:\n  drydock recommend --model Qwen/Qwen3-32B --precision fp8 --system h200_sxm --gpus 16 \\\n"
      "    --isl 4000 --osl 1000 --ttft 1000 --tpot 20\nExit codes: 0 done, 2 bad input, 3 nothing meets the targets");
  cli::add_recommend(app, context);
  cli::add_size(app, context);
  cli::add_estimate(app, context);
  cli::add_simulate(app, context);
  cli::add_serve(app, context);
  cli::add_compare(app, context);
  cli::add_validate(app, context);
  cli::add_calibrate(app, context);
  cli::add_experts(app, context);
  cli::add_models(app, context);
  cli::add_systems(app, context);
  cli::add_support(app, context);
  cli::add_db(app, context);
  cli::add_profile(app, context);
  cli::add_bench(app, context);
  cli::add_generate(app, context);
  cli::add_fleet(app, context);
  cli::add_sweep(app, context);
  cli::add_plot(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "drydock: {}\n", one_line(app, error));
    return cli::kBadInput;
  }
  return context.exit_code;
}

}  // namespace

constexpr int kInternalError = 70;  // EX_SOFTWARE of sysexits.h; 1 is a verdict of `db diff`

int main(int argc, char** argv) {
  ::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error of the write, told as one
  try {
    const int code = run(argc, argv);
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
    fmt::print(stderr, "drydock: standard output can't be written\n");
    return cli::kBadInput;
  } catch (const core::Error& error) {
    fmt::print(stderr, "drydock: {}\n", error.what());
    return cli::kBadInput;
  } catch (const std::exception& error) {
    fmt::print(stderr, "drydock: internal error: {}\n", error.what());
    return kInternalError;
  }
}
