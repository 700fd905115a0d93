#pragma once
// Replay of a recorded trace, line by line: memory does not grow with the file.
#include <filesystem>

#include "simulator/arrivals.h"
#include "simulator/trace_line.h"

namespace drydock::simulator {

struct TraceOptions {
  std::filesystem::path path;
  std::optional<TraceFormat> format;  // none given: guessed from the first line
  double speed = 1;                   // 2: twice the recorded rate
  bool skip_bad = false;              // pass over bad lines and count them, rather than throw
  std::optional<int64_t> most_requests;
  PrefixSharing prefix;  // for traces without hashes of their own
  uint64_t seed = 0;     // of the made-up hashes
};

// Time starts at 0 with the first request. The next line is read ahead, so take() throws what is wrong with the line
// after the one it would have given; nothing more comes then.
class Trace : public Load {
 public:
  virtual int64_t bad_lines() const = 0;  // passed over so far
  virtual TraceFormat format() const = 0;
};

// Throws core::Error naming file, line and what is wrong: no requests, a header or line that is no such trace, a line
// over 1 MiB, lengths out of range, a time before that of the line above.
std::unique_ptr<Trace> open_trace(const TraceOptions& options);

}  // namespace drydock::simulator
