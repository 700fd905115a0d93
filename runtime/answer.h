#pragma once
// The answer to one request while it grows: told of tokens by the service, collected by the thread of its connection.
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/answer_text.h"
#include "runtime/completion_request.h"
#include "runtime/completion_writer.h"
#include "runtime/http_metrics.h"
#include "runtime/service.h"
#include "runtime/text_codec.h"

namespace drydock::runtime {

class Answer;

// Answers with news, on their way from the service's threads to the one that serves their connection. `wake` is called
// when there were none before.
class Mailbox {
 public:
  explicit Mailbox(std::function<void()> wake) : wake_(std::move(wake)) {}
  void put(std::shared_ptr<Answer> answer);  // from any thread
  void take(std::vector<std::shared_ptr<Answer>>& out);
  void close();  // from now on nothing is kept, and `wake` is not called

 private:
  std::mutex mutex_;
  std::function<void()> wake_;
  std::vector<std::shared_ptr<Answer>> answers_;
};

// All but the listeners is for the connection's thread alone.
class Answer : public std::enable_shared_from_this<Answer> {
 public:
  // `request` without its generations, whose number is `choices`. Service and codec must outlive it.
  Answer(CompletionRequest request, size_t choices, const std::string& id, int64_t created_s, Clock::time_point begun,
         Service& service, const TextCodec& codec, std::shared_ptr<Mailbox> mailbox);

  // Hands the generations to the service. Throws ApiError when it takes one of them not; the others are cancelled then.
  void submit(std::vector<Generation> generations);

  // Takes what the service has told, appends it to `events` where the answer is streamed, and counts it.
  void collect(MetricsShard& metrics, std::string& events);
  bool ended() const { return failure_ || open_ == 0; }
  const std::optional<ApiError>& failure() const { return failure_; }  // then the rest is cancelled
  bool streams() const { return request_.stream; }
  std::string body() const;  // of one that ended well and is not streamed
  void cancel();             // what is still generated; later news is dropped

  const CompletionRequest& request() const { return request_; }
  Clock::time_point begun() const { return begun_; }
  std::optional<Clock::time_point> first_token() const { return first_token_; }
  int64_t tokens() const { return tokens_; }
  const char* finish_reason() const;  // of the first choice, for logs: "" while open

  void* owner = nullptr;  // the connection, while it stands

 private:
  struct Arrival {
    Clock::time_point at;
    size_t tokens;
  };
  // What the service's threads write.
  struct Inbox {
    std::mutex mutex;
    std::vector<GeneratedToken> tokens;
    std::vector<Arrival> arrivals;
    std::optional<Finish> finish;
    std::string reason;
    bool closed = false;  // nobody reads any more
  };
  struct Choice {
    explicit Choice(const std::vector<std::string>& stops) : text(stops) {}
    Inbox inbox;
    Service::Id service_id = 0;
    bool submitted = false;
    AnswerText text;
    std::string shown;            // of the choice: all of it, or what is new where it is streamed
    std::vector<ToldToken> told;  // likewise; those whose text is held back stay
    std::vector<GeneratedToken> new_tokens;
    std::vector<Arrival> new_arrivals;
    std::optional<Clock::time_point> last_token;
    bool begun = false;  // an event was written
    const char* finish_reason = nullptr;
  };
  class ChoiceListener;

  void news(Choice& choice, bool urgent);
  void collect(Choice& choice, MetricsShard& metrics, std::string& events);
  void take_times(Choice& choice, MetricsShard& metrics);
  bool take_text(Choice& choice);  // true: a stop string was found
  void end(Choice& choice, Finish finish, const std::string& reason);
  void write_event(Choice& choice, std::string& events);
  void close(Choice& choice);
  void fail(ApiError error);

  CompletionRequest request_;
  CompletionWriter writer_;
  Clock::time_point begun_;
  Service& service_;
  const TextCodec& codec_;
  std::shared_ptr<Mailbox> mailbox_;
  std::vector<std::unique_ptr<Choice>> choices_;
  size_t open_;
  int64_t tokens_ = 0;
  std::optional<Clock::time_point> first_token_;
  std::optional<ApiError> failure_;
  std::atomic<bool> posted_{false};
};

}  // namespace drydock::runtime
