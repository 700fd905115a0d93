#pragma once
// A child process that measures, so that an op that crashes, hangs or runs out of memory takes nothing else along.
#include <sys/types.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "profiler/measure.h"
#include "profiler/worker_messages.h"

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

  // The device's word on how the time of `op` splits, in at most `limit_s` seconds; `status` measured: they are there.
  struct Naming {
    Status status = Status::failed;
    std::vector<KernelPart> parts;
    std::string reason;  // one line, unless measured
  };
  Naming parts(const core::Op& op, double limit_s);
  // Puts a fresh child in the place of this one. Throws core::Error when the device can't be opened.
  void restart();
  double opening_s() const { return opening_s_; }  // that the device took to open

 private:
  void start();
  void greet();
  void kill();
  bool send(const std::string& line);
  enum class Answer : uint8_t { line, died, late, stopped };
  // Asks for an answer of status `wanted`. A child that failed to give one is replaced.
  Status ask(const std::string& request, const char* wanted, double limit_s, Message& message);
  Answer receive(double limit_s, std::string& line);
  std::string last_words();  // how the child ended

  Opener open_;
  StopRule rule_;
  const std::atomic<bool>* stop_;
  Identity identity_;
  pid_t child_ = -1;
  int to_child_ = -1, from_child_ = -1;
  double opening_s_ = 0;
  std::string buffer_;
};

}  // namespace drydock::profiler
