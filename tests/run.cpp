#include "tests/run.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "core/file.h"

extern char** environ;

namespace drydock::tests {

namespace fs = std::filesystem;

Scratch::Scratch() {
  static std::atomic<int> next{0};
  path_ = fs::temp_directory_path() / ("drydock_test_" + std::to_string(::getpid()) + "_" + std::to_string(next++));
  fs::create_directories(path_);
}

Scratch::~Scratch() {
  std::error_code status;
  fs::remove_all(path_, status);
}

std::string Scratch::write(const std::string& name, const std::string& text) const {
  core::write_file(path_ / name, text);
  return (path_ / name).string();
}

int lines(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '\n')) + (text.empty() || text.back() == '\n' ? 0 : 1);
}

pid_t start_drydock(const std::vector<std::string>& arguments, const std::string& out, const std::string& err) {
  const std::string program = (fs::read_symlink("/proc/self/exe").parent_path() / "drydock").string();
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, out.c_str(), O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&files, 2, err.c_str(), O_WRONLY | O_CREAT, 0600);
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t child = -1;
  if (posix_spawn(&child, program.c_str(), &files, nullptr, argv.data(), environ) != 0) child = -1;
  posix_spawn_file_actions_destroy(&files);
  return child;
}

Run run_drydock(const std::vector<std::string>& arguments) {
  const Scratch scratch;
  const std::string out = scratch / "out", err = scratch / "err";
  Run run;
  if (const pid_t child = start_drydock(arguments, out, err); child > 0) {
    int status = 0;
    ::waitpid(child, &status, 0);
    run.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    run.out = core::read_file(out);
    run.err = core::read_file(err);
  }
  return run;
}

}  // namespace drydock::tests
