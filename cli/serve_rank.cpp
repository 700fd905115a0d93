// The process of a tensor-parallel rank, which the first rank's begins (runtime/ranked_engine.h). Not for people:
// --help does not list it.
#include <sys/socket.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>

#include "cli/command.h"
#include "core/error.h"
#include "runtime/ranked_engine.h"

namespace drydock::cli {
namespace {

constexpr int kRankSocket = 3, kRankMemory = 4;  // as runtime::spawn numbers them

[[noreturn]] void rank_process() {
  int domain = 0;
  socklen_t size = sizeof domain;
  if (::getsockopt(kRankSocket, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 || domain != AF_UNIX)
    throw core::Error("rank: drydock serve begins it; it is no command for people");
  struct stat memory {};
  runtime::follow_first_rank(kRankSocket, ::fstat(kRankMemory, &memory) == 0 ? kRankMemory : -1);
}

}  // namespace

void add_rank(CLI::App& app, Context&) {
  CLI::App* command = app.add_subcommand("rank", "a rank of a worker that drydock serve has begun");
  command->group("");  // hidden
  const auto name = std::make_shared<std::string>();
  command->add_option("name", *name, "worker and rank, for lists of processes");
  command->callback([name] { rank_process(); });
}

}  // namespace drydock::cli
