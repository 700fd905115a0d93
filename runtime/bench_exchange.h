#pragma once
// One request of the benchmark client on its way, and the answer as it comes in. Only bench_*.cpp include this.
#include <string>
#include <string_view>

#include "runtime/bench_http.h"
#include "runtime/sse.h"
#include "simulator/cluster.h"

namespace drydock::runtime {

// What all exchanges of a run share.
struct BenchHub {
  simulator::Observer& observer;
  double now_us = 0;         // when the sockets were last found readable
  double output_tokens = 0;  // that have come so far
  int64_t chunks = 0, bytes = 0;
};

class Exchange {
 public:
  Exchange(BenchHub& hub, CurlEasy handle);
  void begin();  // before each try

  CurlEasy easy;
  simulator::RequestRecord record;
  std::string body;
  int64_t tag = 0, asked_tokens = 0;
  int tries = 0;

  // Of the present try. Counts are -1 where the server did not say.
  int64_t chunks = 0, prompt_tokens = -1, completion_tokens = -1, cached_tokens = -1;
  long status = 0;
  double retry_after_s = -1;
  // Empty: the answer is whole.
  std::string failure(CURLcode code) const;

 private:
  static size_t on_header(char* bytes, size_t, size_t count, void* self);
  static size_t on_body(char* bytes, size_t, size_t count, void* self);
  size_t take(std::string_view bytes);
  void event(std::string_view data);

  BenchHub& hub_;
  SseReader reader_;
  std::string error_, refusal_;
  bool finished_ = false;
};

}  // namespace drydock::runtime
