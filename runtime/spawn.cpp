#include "runtime/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "core/error.h"
#include "runtime/socket.h"

extern char** environ;

namespace drydock::runtime {
namespace {

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

std::vector<std::string> variables_with(const std::vector<std::string>& given) {
  std::vector<std::string> out;
  for (char** at = environ; *at; ++at) out.emplace_back(*at);
  for (const std::string& pair : given) {
    const std::string key = pair.substr(0, pair.find('=') + 1);
    std::erase_if(out, [&](const std::string& v) { return v.starts_with(key); });
    out.push_back(pair);
  }
  return out;
}

// Default signals, none blocked, a process group of its own.
class FreshAttributes {
 public:
  FreshAttributes() {
    posix_spawnattr_init(&attributes_);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  ~FreshAttributes() { posix_spawnattr_destroy(&attributes_); }
  FreshAttributes(const FreshAttributes&) = delete;
  FreshAttributes& operator=(const FreshAttributes&) = delete;
  const posix_spawnattr_t* get() const { return &attributes_; }

 private:
  posix_spawnattr_t attributes_;
};

// Copies above the numbers that the child is to have, so that none is overwritten before it is moved.
class MovedDescriptors {
 public:
  explicit MovedDescriptors(std::span<const int> descriptors) {
    posix_spawn_file_actions_init(&actions_);
    constexpr int kFirst = 3;
    const int end = kFirst + static_cast<int>(descriptors.size());
    for (const int fd : descriptors) {
      copies_.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, end));
      posix_spawn_file_actions_adddup2(&actions_, copies_.back().fd(), kFirst + static_cast<int>(copies_.size()) - 1);
    }
    if (!descriptors.empty()) posix_spawn_file_actions_addclosefrom_np(&actions_, end);
  }
  ~MovedDescriptors() { posix_spawn_file_actions_destroy(&actions_); }
  MovedDescriptors(const MovedDescriptors&) = delete;
  MovedDescriptors& operator=(const MovedDescriptors&) = delete;
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
  std::vector<Socket> copies_;
};

}  // namespace

pid_t spawn(const std::string& program, const std::vector<std::string>& arguments,
            const std::vector<std::string>& environment, std::span<const int> descriptors, const std::string& name) {
  std::vector<std::string> words{program}, variables = variables_with(environment);
  words.insert(words.end(), arguments.begin(), arguments.end());
  const FreshAttributes attributes;
  const MovedDescriptors moved(descriptors);
  pid_t pid = -1;
  const int status = ::posix_spawn(&pid, program.c_str(), moved.get(), attributes.get(), pointers_to(words).data(),
                                   pointers_to(variables).data());
  if (status != 0)
    throw core::Error("can't start " + program + " for " + name + ": " + std::generic_category().message(status));
  return pid;
}

std::string own_program() {
  std::error_code status;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", status);
  if (status) throw core::Error("/proc/self/exe: " + status.message());
  return path.string();
}

}  // namespace drydock::runtime
