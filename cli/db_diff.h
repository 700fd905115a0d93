#pragma once
// `drydock db diff`: whether kernels got slower between two databases.
#include "cli/command.h"

namespace drydock::cli {

// Adds itself to the commands of `db`.
void add_db_diff(CLI::App& db, Context& context);

}  // namespace drydock::cli
