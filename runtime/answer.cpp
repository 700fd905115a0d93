#include "runtime/answer.h"

#include <algorithm>
#include <utility>

namespace drydock::runtime {
namespace {

ToldToken told_token(const GeneratedToken& token, const TextCodec& codec, std::string bytes, int64_t offset) {
  ToldToken out{token.token, std::move(bytes), token.logprob, {}, offset};
  for (const TokenLogprob& other : token.top) out.top.push_back({other.token, codec.bytes(other.token), other.logprob});
  return out;
}

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::max(std::chrono::duration<double>(to - from).count(), 0.0);
}

}  // namespace

void Mailbox::put(std::shared_ptr<Answer> answer) {
  const std::lock_guard lock(mutex_);
  if (!wake_) return;
  answers_.push_back(std::move(answer));
  if (answers_.size() == 1) wake_();
}

void Mailbox::take(std::vector<std::shared_ptr<Answer>>& out) {
  const std::lock_guard lock(mutex_);
  out.swap(answers_);
}

void Mailbox::close() {
  std::vector<std::shared_ptr<Answer>> dropped;  // outside the lock: an answer's end may be its last reference
  const std::lock_guard lock(mutex_);
  wake_ = nullptr;
  dropped.swap(answers_);
}

// Keeps the answer alive for as long as the service may tell of it.
class Answer::ChoiceListener : public Listener {
 public:
  ChoiceListener(std::shared_ptr<Answer> answer, Choice& choice) : answer_(std::move(answer)), choice_(choice) {}

  void on_tokens(std::span<const GeneratedToken> tokens) override {
    if (tokens.empty()) return;
    {
      const std::lock_guard lock(choice_.inbox.mutex);
      if (choice_.inbox.closed) return;
      choice_.inbox.tokens.insert(choice_.inbox.tokens.end(), tokens.begin(), tokens.end());
      choice_.inbox.arrivals.push_back({Clock::now(), tokens.size()});
    }
    answer_->news(choice_, false);
  }

  void on_finish(Finish finish, const std::string& reason) override {
    {
      const std::lock_guard lock(choice_.inbox.mutex);
      if (choice_.inbox.closed) return;
      choice_.inbox.finish = finish;
      choice_.inbox.reason = reason;
    }
    answer_->news(choice_, true);
  }

 private:
  std::shared_ptr<Answer> answer_;
  Choice& choice_;
};

Answer::Answer(CompletionRequest request, size_t choices, const std::string& id, int64_t created_s,
               Clock::time_point begun, Service& service, const TextCodec& codec, std::shared_ptr<Mailbox> mailbox)
    : request_(std::move(request)),
      writer_(request_, id, created_s),
      begun_(begun),
      service_(service),
      codec_(codec),
      mailbox_(std::move(mailbox)),
      open_(choices) {
  for (size_t i = 0; i < choices; ++i) {
    choices_.push_back(std::make_unique<Choice>(request_.stops));
    if (!request_.echoes.empty()) choices_.back()->shown = request_.echoes[i];
  }
}

void Answer::submit(std::vector<Generation> generations) {
  for (size_t i = 0; i < choices_.size(); ++i) {
    const auto listener = std::make_shared<ChoiceListener>(shared_from_this(), *choices_[i]);
    const Admission admission = service_.submit(std::move(generations[i]), listener, choices_[i]->service_id);
    if (admission == Admission::accepted) {
      choices_[i]->submitted = true;
      continue;
    }
    cancel();
    if (admission == Admission::overloaded)
      throw ApiError(429, "too many requests wait; try again after the time in Retry-After", "", "overloaded");
    if (admission == Admission::draining) throw ApiError(503, "the server is shutting down", "", "draining");
    throw ApiError(400, "prompt and answer together fit into no worker's memory", "", "context_length_exceeded");
  }
}

// What is not shown before its end need not wake anybody before, unless a stop string may end it.
void Answer::news(Choice&, bool urgent) {
  if (!urgent && !request_.stream && request_.stops.empty()) return;
  if (!posted_.exchange(true)) mailbox_->put(shared_from_this());
}

void Answer::collect(MetricsShard& metrics, std::string& events) {
  // Before the inboxes are read: news that comes from here on posts the answer again.
  posted_.store(false);
  if (ended()) return;
  for (const auto& choice : choices_)
    if (!choice->finish_reason && !failure_) collect(*choice, metrics, events);
  if (!request_.stream || !ended()) return;
  if (failure_)
    CompletionWriter::error_event(events, *failure_);
  else
    writer_.usage_event(events, {request_.prompt_tokens, tokens_});
  CompletionWriter::last_event(events);
}

void Answer::collect(Choice& choice, MetricsShard& metrics, std::string& events) {
  std::optional<Finish> finish;
  std::string reason;
  {
    const std::lock_guard lock(choice.inbox.mutex);
    choice.new_tokens.swap(choice.inbox.tokens);
    choice.new_arrivals.swap(choice.inbox.arrivals);
    finish = choice.inbox.finish;
    reason = choice.inbox.reason;
  }
  if (choice.new_tokens.empty() && !finish) return;
  take_times(choice, metrics);
  if (take_text(choice)) {
    close(choice);
    choice.finish_reason = "stop";
    --open_;
  } else if (finish) {
    end(choice, *finish, reason);
  }
  choice.new_tokens.clear();
  choice.new_arrivals.clear();
  if (request_.stream && !failure_) write_event(choice, events);
}

void Answer::take_times(Choice& choice, MetricsShard& metrics) {
  for (const Arrival& arrival : choice.new_arrivals) {
    if (!first_token_) {
      first_token_ = arrival.at;
      metrics.time_to_first_token_s.observe(seconds_between(begun_, arrival.at));
    }
    // Tokens of one step have come in equal parts of its time.
    const auto count = static_cast<double>(arrival.tokens);
    if (choice.last_token)
      metrics.inter_token_latency_s.observe(seconds_between(*choice.last_token, arrival.at) / count, arrival.tokens);
    choice.last_token = arrival.at;
  }
}

bool Answer::take_text(Choice& choice) {
  for (const GeneratedToken& token : choice.new_tokens) {
    ++tokens_;
    std::string bytes = codec_.bytes(token.token);
    const int64_t offset = choice.text.characters();
    const bool stopped = choice.text.push(bytes, choice.shown);
    if (request_.logprobs >= 0 && (!stopped || offset < choice.text.shown()))
      choice.told.push_back(told_token(token, codec_, std::move(bytes), offset));
    if (!stopped) continue;
    // Tokens of the stop string that were held back with it.
    std::erase_if(choice.told, [&](const ToldToken& told) { return told.offset >= choice.text.shown(); });
    return true;
  }
  return false;
}

void Answer::end(Choice& choice, Finish finish, const std::string& reason) {
  switch (finish) {
    case Finish::stop:
    case Finish::length:
      choice.text.finish(choice.shown);
      choice.finish_reason = finish == Finish::stop ? "stop" : "length";
      --open_;
      return close(choice);
    case Finish::cancelled:
      return fail({503, "the server ended the request", "", "cancelled"});
    case Finish::deadline:
      return fail({504, "the request's time is over", "", "deadline_exceeded"});
    case Finish::failed:
      return fail({500, "the request failed: " + reason, "", "failed"});
  }
}

void Answer::write_event(Choice& choice, std::string& events) {
  // Log-probabilities go out with the text they belong to; all of them at the end.
  auto& told = choice.told;
  const auto held = std::find_if(told.begin(), told.end(), [&](const ToldToken& token) {
    return !choice.finish_reason && token.offset >= choice.text.shown() && !token.bytes.empty();
  });
  const std::span<const ToldToken> ready(told.data(), static_cast<size_t>(held - told.begin()));
  const auto index =
      std::find_if(choices_.begin(), choices_.end(), [&](const auto& one) { return one.get() == &choice; });
  writer_.event(events, static_cast<size_t>(index - choices_.begin()), choice.shown, !choice.begun, ready,
                choice.finish_reason);
  choice.begun = true;
  choice.shown.clear();
  told.erase(told.begin(), held);
}

std::string Answer::body() const {
  std::vector<WholeChoice> whole;
  for (const auto& choice : choices_) whole.push_back({choice->shown, choice->finish_reason, choice->told});
  return writer_.body(whole, {request_.prompt_tokens, tokens_});
}

void Answer::close(Choice& choice) {
  bool going = false;
  {
    const std::lock_guard lock(choice.inbox.mutex);
    choice.inbox.closed = true;
    going = !choice.inbox.finish;
    choice.inbox.tokens = {};
    choice.inbox.arrivals = {};
  }
  // Outside the lock: the service may tell of the end from within.
  if (going && choice.submitted) service_.cancel(choice.service_id);
}

void Answer::cancel() {
  for (const auto& choice : choices_)
    if (!choice->finish_reason) close(*choice);
}

void Answer::fail(ApiError error) {
  failure_ = std::move(error);
  cancel();
}

const char* Answer::finish_reason() const {
  const char* reason = choices_.front()->finish_reason;
  return reason ? reason : "";
}

}  // namespace drydock::runtime
