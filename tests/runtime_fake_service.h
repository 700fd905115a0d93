#pragma once
// A service that answers by a script, for tests of what is in front of it.
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "runtime/service.h"

namespace drydock::tests {

struct Script {
  runtime::Admission admission = runtime::Admission::accepted;
  std::vector<runtime::Token> tokens;           // cut at the generation's most_tokens, which then ends by length
  std::chrono::microseconds first{0}, each{0};  // before the first token, and between tokens
  runtime::Finish finish = runtime::Finish::stop;
  std::string reason;
  bool stuck = false;                     // never ends by itself
  size_t at_once = 1;                     // tokens told together
  std::function<runtime::Token()> stamp;  // where set, draws each token as it is told
};

class FakeService : public runtime::Service {
 public:
  explicit FakeService(std::function<Script(const runtime::Generation&)> plan);
  ~FakeService() override;

  runtime::Admission submit(runtime::Generation generation, std::shared_ptr<runtime::Listener> listener,
                            Id& id) override;
  void cancel(Id id) override;
  bool ready() const override { return is_ready; }
  int64_t longest_sequence() const override { return longest; }
  double retry_after_s() const override { return 2.5; }
  runtime::ServiceStats stats() const override;

  // How many are open now, and how many were cancelled so far.
  int64_t open() const;
  int64_t cancelled() const { return cancelled_; }
  std::vector<runtime::Generation> seen() const;  // the last ones submitted, at most 1000

  std::atomic<bool> is_ready{true};
  int64_t longest = 4096;

 private:
  struct Running {
    runtime::Generation generation;
    std::shared_ptr<runtime::Listener> listener;
    Script script;
    size_t told = 0;
    bool cancelled = false;
  };
  void work();
  // Tells what is due; returns when the next is, nullopt at the end.
  std::optional<runtime::Clock::time_point> step(Running& running);

  std::function<Script(const runtime::Generation&)> plan_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<Id, std::shared_ptr<Running>> running_;
  std::multimap<runtime::Clock::time_point, Id> due_;
  std::vector<runtime::Generation> seen_;
  std::atomic<int64_t> cancelled_{0};
  Id next_ = 1;
  bool stop_ = false;
  std::thread thread_;
};

// Bytes as ByteCodec's tokens.
std::vector<runtime::Token> byte_tokens(std::string_view text);

}  // namespace drydock::tests
