#pragma once
// An engine of several tensor-parallel ranks, each a process: this one is the first, and begins and leads the others.
#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "runtime/cpu_engine.h"

namespace drydock::runtime {

// Starts the process of rank `rank`, which calls follow_first_rank(socket, memory) with its own copies of the two
// descriptors, and holds no others of this process. `memory` is below 0 on GPUs. Throws core::Error.
using StartRank = std::function<pid_t(int rank, int socket, int memory)>;

struct RankedOptions {
  std::string name;  // of the worker, for errors and the processes' command lines
  bool cuda = false;
  std::filesystem::path model_dir;
  // share.ranks of them, above 1. threads: of all ranks together, at least one each. Rank r is on GPU device + r.
  EngineOptions engine;
  StartRank start;  // empty: `drydock rank`
};

// Every step goes to all ranks over a socket each, and they make it together; answers are the first rank's. KV blocks
// that are read and written are whole, so that workers of other ranks can go on with them. When a rank ends, or fails,
// the engine is lost: steps throw, and the other ranks' processes end. So they do when the engine or this process goes,
// however that happens. Throws core::Error, also of what other ranks say.
// NCCL can't be told that a rank died while the ranks' communicator is being made: that moment is not guarded on GPUs.
std::unique_ptr<Engine> make_ranked_engine(const RankedOptions& options);

// What the process of another rank does, until the first one's ends, or it fails. Takes both descriptors.
[[noreturn]] void follow_first_rank(int socket, int memory);

}  // namespace drydock::runtime
