#pragma once
// A child process that measures, so that an op that crashes, hangs or runs out of memory takes nothing else along.
#include <sys/types.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "profiler/measure.h"

namespace drydock::profiler {

// Opens the device; called in the child only, as a GPU's driver does not survive a fork.
using Opener = std::function<std::unique_ptr<Device>()>;

class Worker {
 public:
  // `stop`, set from a signal handler, ends every wait within a tenth of a second; may be null.
  // Throws core::Error when the device can't be opened.
  Worker(Opener open, StopRule rule, const std::atomic<bool>* stop = nullptr);
  ~Worker();  // kills the child
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  const Identity& identity() const { return identity_; }

  // The device's machine, written to `file` as `--system` reads it. Throws core::Error when the device fails.
  models::System system(const std::filesystem::path& file);

  enum class Status : uint8_t {
    measured,
    refused,  // the device said why it can't
    failed,   // an error, a crash or no answer in time; a fresh child is ready
    stopped   // `stop` was set
  };
  struct Outcome {
    Status status = Status::failed;
    Measured measured;
    std::string reason;  // one line, unless measured
  };
  // Measures `op` in at most `limit_s` seconds.
  Outcome measure(const core::Op& op, double limit_s);

 private:
  void start();
  void greet();
  void kill();
  bool send(const std::string& line);
  enum class Answer : uint8_t { line, died, late, stopped };
  Answer receive(double limit_s, std::string& line);
  std::string last_words();  // how the child ended

  Opener open_;
  StopRule rule_;
  const std::atomic<bool>* stop_;
  Identity identity_;
  pid_t child_ = -1;
  int to_child_ = -1, from_child_ = -1;
  std::string buffer_;
};

}  // namespace drydock::profiler
