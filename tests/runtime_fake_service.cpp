#include "tests/runtime_fake_service.h"

#include <algorithm>

namespace drydock::tests {

using runtime::Admission;
using runtime::Clock;
using runtime::Finish;

FakeService::FakeService(std::function<Script(const runtime::Generation&)> plan)
    : plan_(std::move(plan)), thread_([this] { work(); }) {}

FakeService::~FakeService() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Admission FakeService::submit(runtime::Generation generation, std::shared_ptr<runtime::Listener> listener, Id& id) {
  Script script = plan_(generation);
  if (script.admission != Admission::accepted) return script.admission;
  if (script.tokens.size() > static_cast<size_t>(generation.most_tokens)) {
    script.tokens.resize(static_cast<size_t>(generation.most_tokens));
    script.finish = Finish::length;
  }
  const std::lock_guard lock(mutex_);
  id = next_++;
  if (seen_.size() < 1000) seen_.push_back(generation);
  const auto when = Clock::now() + script.first;
  running_[id] =
      std::make_shared<Running>(Running{std::move(generation), std::move(listener), std::move(script), 0, false});
  due_.emplace(when, id);
  changed_.notify_all();
  return Admission::accepted;
}

void FakeService::cancel(Id id) {
  const std::lock_guard lock(mutex_);
  const auto found = running_.find(id);
  if (found == running_.end() || found->second->cancelled) return;
  found->second->cancelled = true;
  ++cancelled_;
  due_.emplace(Clock::now(), id);
  changed_.notify_all();
}

void FakeService::work() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (due_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const auto [when, id] = *due_.begin();
    if (when > Clock::now()) {
      changed_.wait_until(lock, when);
      continue;
    }
    due_.erase(due_.begin());
    const auto found = running_.find(id);
    if (found == running_.end()) continue;  // a cancelled one's other entry
    const auto running = found->second;
    lock.unlock();
    const auto next = step(*running);
    lock.lock();
    if (next)
      due_.emplace(*next, id);
    else
      running_.erase(id);
  }
}

std::optional<Clock::time_point> FakeService::step(Running& running) {
  const auto finish = [&](Finish how) {
    running.listener->on_finish(how, how == Finish::failed ? running.script.reason : "");
    return std::nullopt;
  };
  bool cancelled = false;
  {
    const std::lock_guard lock(mutex_);
    cancelled = running.cancelled;
  }
  if (cancelled) return finish(Finish::cancelled);
  const auto now = Clock::now();
  if (running.generation.deadline && now >= *running.generation.deadline) return finish(Finish::deadline);
  const Script& script = running.script;
  std::vector<runtime::GeneratedToken> tokens;
  for (; tokens.size() < script.at_once && running.told < script.tokens.size(); ++running.told) {
    runtime::GeneratedToken& token = tokens.emplace_back();
    token.token = script.stamp ? script.stamp() : script.tokens[running.told];
    if (running.generation.sampling.logprobs >= 0) token.logprob = -0.5f;
    for (int i = 0; i < running.generation.sampling.logprobs; ++i)
      token.top.push_back({i == 0 ? token.token : 'a' + i, -0.5f - static_cast<float>(i)});
  }
  if (!tokens.empty()) running.listener->on_tokens(tokens);
  auto next = now + script.each;
  if (running.told == script.tokens.size()) {
    if (!script.stuck) return finish(script.finish);
    next = now + std::chrono::milliseconds(5);  // for the deadline
  }
  return running.generation.deadline ? std::min(next, *running.generation.deadline) : next;
}

runtime::ServiceStats FakeService::stats() const {
  const std::lock_guard lock(mutex_);
  runtime::ServiceStats out;
  out.queued = 3;
  out.running = static_cast<int64_t>(running_.size());
  out.migrated = 7;
  out.kv_transfers = 11;
  out.workers.push_back(
      {"decode/0", "decode", true, 1, out.running, 100, 25, 5, 2, 1000, 400, 50, 10, 0.5, 20, 80, 50});
  return out;
}

int64_t FakeService::open() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(running_.size());
}

std::vector<runtime::Generation> FakeService::seen() const {
  const std::lock_guard lock(mutex_);
  return seen_;
}

std::vector<runtime::Token> byte_tokens(std::string_view text) {
  std::vector<runtime::Token> out;
  for (const char c : text) out.push_back(static_cast<unsigned char>(c));
  return out;
}

}  // namespace drydock::tests
