#pragma once
// Runs the built drydock as a user would, without a shell.
#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace drydock::tests {

struct Run {
  int exit_code = -1;
  std::string out, err;
};

// `drydock` beside the running test program, with these arguments; stdin is empty.
Run run_drydock(const std::vector<std::string>& arguments);

// Starts it without waiting: its stdout and stderr go to these files. The process's id; -1: it can't be started.
pid_t start_drydock(const std::vector<std::string>& arguments, const std::string& out = "/dev/null",
                    const std::string& err = "/dev/null");

// Lines of text; a last one without an end counts.
int lines(const std::string& text);

// A fresh folder that goes away with the object.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  const std::filesystem::path& path() const { return path_; }
  std::string write(const std::string& name, const std::string& text) const;  // returns the file's path

 private:
  std::filesystem::path path_;
};

}  // namespace drydock::tests
