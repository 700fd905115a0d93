#pragma once
// Starts a process without a shell.
#include <sys/types.h>

#include <span>
#include <string>
#include <vector>

namespace drydock::runtime {

// `program` with these arguments, default signals and a process group of its own, so that a terminal's Ctrl-C comes to
// this process alone. `environment`: "NAME=value", beside or in place of this process's own. `descriptors`, where there
// are some, are 3, 4, .. there, and no others but the standard ones are open. Throws core::Error naming `name`.
pid_t spawn(const std::string& program, const std::vector<std::string>& arguments,
            const std::vector<std::string>& environment, std::span<const int> descriptors, const std::string& name);

// This program's path. Throws core::Error.
std::string own_program();

}  // namespace drydock::runtime
