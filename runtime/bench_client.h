#pragma once
// A benchmark client of any OpenAI-compatible server: sends a load's requests when the load says so, reads the streams
// of all of them on one thread, and tells an observer of the simulator what their users felt.
//
// A moment is that at which the socket was found readable, before anything is parsed; TTFT counts from when the request
// was due, not from when it could be sent, so that a client or server that falls behind shows ("coordinated omission").
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/bench_request.h"
#include "simulator/cluster.h"
#include "simulator/counted_load.h"

namespace drydock::runtime {

struct BenchTarget {
  std::string url;         // "http://127.0.0.1:8000", with or without /v1 behind it
  std::string api_key;     // sent as a bearer token; may be empty
  double timeout_s = 600;  // for one answer, and for a connection at most 10 s
  bool verify_tls = true;  // off: certificates are not checked
};

// What a server says of itself. Throws core::Error in one line when it can't be reached or wants another key.
struct BenchServer {
  std::vector<std::string> models;  // of /v1/models; empty where there is no such page
};
BenchServer ask_server(const BenchTarget& target);

// Learns how the server counts text: sends two short chats of one token each, and sets unit, chat_overhead and
// tokens_per_unit of `form`; where it does not count, a word is taken for a token. Throws core::Error when they are not
// answered.
void learn_text(const BenchTarget& target, RequestForm& form);

struct BenchProgress {
  int64_t answered = 0, in_flight = 0, failed = 0;
  double elapsed_s = 0;
};

struct BenchRun {
  BenchTarget target;
  RequestForm form;
  TokenRange tokens;
  uint64_t seed = 1;
  int retries = 0;                          // of a refused request (429, 503), after as long as the server asks for
  int64_t streams = 0;                      // that are made ready before the first request
  int64_t steady_after = 0;                 // answers after which throughput is counted
  const std::atomic<bool>* stop = nullptr;  // set: no more requests, those in flight are given up
  std::function<void(const BenchProgress&)> progress;  // a few times a second
};

enum class BenchEnd : uint8_t {
  over,     // the load came to its end
  stopped,  // BenchRun::stop, or the observer had enough
  gone,     // the server can't be reached any more
};

struct BenchTotals {
  BenchEnd end = BenchEnd::over;
  simulator::ClusterTotals totals;        // as far as a client can know: times, lost, rejected, unfinished, throughput
  std::map<std::string, int64_t> errors;  // what was said, and how often
  int64_t answered = 0, retried = 0, most_in_flight = 0;
  int64_t chunks = 0, bytes = 0;
  int64_t wrong_lengths = 0;                     // answers that are not as long as asked
  int64_t prompt_tokens = 0, cached_tokens = 0;  // as the server counted them; 0: it did not say
  int64_t asked_prompt_tokens = 0;               // of the same requests
  std::vector<double> late_ms;                   // from when a request was due until it was handed to the network
  double cpu_s = 0, wall_s = 0;                  // of this client
};

// Returns when the load is over. `observer` is told of each request in the order of their ends, and of each pause
// between two chunks; a record's started_us is when it was sent. Lost: an error, a broken stream or a time-out;
// rejected: refused for overload. Throws core::Error when no connection can be made at all.
BenchTotals run_bench(const BenchRun& run, simulator::CountedLoad& load, simulator::Observer& observer);

}  // namespace drydock::runtime
