// The drydock command: parses, asks the libraries, prints.
#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

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
  const std::string_view twice = ": At Most 1 required but received ";
  if (const size_t found = what.find(twice); found != std::string::npos)
    return what.substr(0, found) + " is given " + what.substr(found + twice.size()) + " times; want it once";
  if (what == "A subcommand is required" && at->remaining().empty())
    return "a command is missing; drydock " + (at == &app ? "" : at->get_name() + " ") + "--help lists them";
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

struct Command {
  std::string_view name;
  void (*add)(CLI::App&, cli::Context&);
};
constexpr Command kCommands[] = {
    {"recommend", cli::add_recommend}, {"size", cli::add_size},
    {"estimate", cli::add_estimate},   {"simulate", cli::add_simulate},
    {"serve", cli::add_serve},         {"rank", cli::add_rank},
    {"compare", cli::add_compare},     {"validate", cli::add_validate},
    {"calibrate", cli::add_calibrate}, {"experts", cli::add_experts},
    {"models", cli::add_models},       {"systems", cli::add_systems},
    {"support", cli::add_support},     {"db", cli::add_db},
    {"profile", cli::add_profile},     {"bench", cli::add_bench},
    {"generate", cli::add_generate},   {"fleet", cli::add_fleet},
    {"sweep", cli::add_sweep},         {"plot", cli::add_plot},
};

// All of them, unless the first argument names one: options of the others cost more than some commands take.
void add_commands(CLI::App& app, cli::Context& context) {
  const std::string_view first = context.arguments.size() > 1 ? context.arguments[1] : std::string_view();
  const bool named = std::any_of(std::begin(kCommands), std::end(kCommands),
                                 [&](const Command& command) { return command.name == first; });
  for (const Command& command : kCommands)
    if (!named || command.name == first) command.add(app, context);
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
  add_commands(app, context);
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
