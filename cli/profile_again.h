#pragma once
// What `drydock profile --ops` measures: the ops of another database.
#include <string>
#include <vector>

#include "core/op.h"
#include "models/system.h"

namespace drydock::cli {

struct AgainOps {
  models::System system;  // of a CPU only its name
  std::vector<core::Op> ops;
};

// `system`: as --system gives it; empty: the one that `file` has ops of. Throws core::Error naming flag and file when
// there are none, of several systems or of another target's.
AgainOps ops_of(const std::string& file, const std::string& system, const std::string& target);

}  // namespace drydock::cli
