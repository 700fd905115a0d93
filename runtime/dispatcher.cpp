#include "runtime/dispatcher.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "core/error.h"
#include "runtime/dispatcher_state.h"

namespace drydock::runtime {
namespace {

constexpr double kLeastRetry = 1, kMostRetry = 60;

const char* role_of(Stage stage) {
  return stage == Stage::prefill ? "prefill" : stage == Stage::decode ? "decode" : "worker";
}

}  // namespace

Pulse summed(const Pulse& before, const Pulse& now) {
  Pulse out = now;
  out.preemptions += before.preemptions, out.steps += before.steps;
  out.prompt_tokens += before.prompt_tokens, out.cached_prompt_tokens += before.cached_prompt_tokens;
  out.generated_tokens += before.generated_tokens, out.step_seconds += before.step_seconds;
  out.drafts += before.drafts, out.draft_tokens += before.draft_tokens;
  out.accepted_tokens += before.accepted_tokens;
  out.kv_transfers += before.kv_transfers, out.kv_transfers_failed += before.kv_transfers_failed;
  out.kv_transferred_bytes += before.kv_transferred_bytes, out.kv_transfer_seconds += before.kv_transfer_seconds;
  return out;
}

std::string worker_name(Stage stage, int index) { return std::string(role_of(stage)) + "/" + std::to_string(index); }

Dispatcher::Impl::Impl(DispatcherSpec given) : spec(std::move(given)) {
  // A worker may still have news of attempts that a router before this one made.
  std::random_device device;
  next_attempt = (static_cast<uint64_t>(device()) << 31) + 1;
  for (const DispatcherSpec::Pool& pool : spec.pools) pools.emplace_back(pool, spec.router);
  if (spec.router.policy == scheduler::RouterPolicy::kv_aware)
    hasher = std::make_unique<BlockHasher>(spec.router.block_tokens);
  thread = std::thread([this] { run(); });
}

Dispatcher::Impl::~Impl() {
  {
    const std::scoped_lock lock(inbox_mutex);
    stopping = true;
  }
  wake.notify_all();
  thread.join();
}

void Dispatcher::Impl::post(std::function<void()> task) {
  {
    const std::scoped_lock lock(inbox_mutex);
    if (stopping) return;
    inbox.push_back(std::move(task));
  }
  wake.notify_one();
}

void Dispatcher::Impl::run() {
  for (bool stop = false; !stop;) {
    {
      std::unique_lock lock(inbox_mutex);
      wake.wait_until(lock, next_time(), [this] { return stopping || !inbox.empty(); });
      taken.swap(inbox);
      stop = stopping;
    }
    {
      const std::scoped_lock lock(state_mutex);
      for (const auto& task : taken) task();
      on_time(Clock::now());
      if (stop)
        while (!lives.empty()) end(lives.begin()->first, Finish::failed, "the server is stopping");
      delivering = !deliveries.empty();
    }
    taken.clear();
    deliver();
    if (delivering.exchange(false)) emptied.notify_all();
  }
}

void Dispatcher::Impl::deliver() {
  for (Delivery& d : deliveries) {
    if (!d.tokens.empty()) d.listener->on_tokens(d.tokens);
    if (d.finish) d.listener->on_finish(*d.finish, d.reason);
  }
  deliveries.clear();
}

// Only this thread changes what it looks at.
Clock::time_point Dispatcher::Impl::next_time() const {
  Clock::time_point at = next_look;
  if (!deadlines.empty()) at = std::min(at, deadlines.begin()->first);
  if (!held.empty()) at = std::min(at, held.begin()->first);
  return at;
}

void Dispatcher::Impl::on_time(Clock::time_point now) {
  while (!held.empty() && held.begin()->first <= now) {
    const auto at = lives.find(held.begin()->second);
    held.erase(held.begin());
    if (at == lives.end()) continue;
    Live* l = at->second.get();
    const Id id = l->id;
    // A piece of news may end the request, or send it elsewhere, which empties the rest.
    while (lives.contains(id) && !l->pending.empty() && l->due <= now) {
      News news = std::move(l->pending.front());
      l->pending.pop_front();
      apply(*l, news);
    }
  }
  while (!deadlines.empty() && deadlines.begin()->first <= now) {
    const Id id = deadlines.begin()->second;
    deadlines.erase(deadlines.begin());
    end(id, Finish::deadline, "");
  }
  if (now < next_look) return;
  next_look = now + kHeartbeat;
  look_at_workers();
  house();
}

// A worker may be there and stuck.
void Dispatcher::Impl::look_at_workers() {
  for (PlacePool& pool : pools)
    for (Place& p : pool.places)
      if (p.link && p.link->pulse().step_age_seconds > spec.longest_step_s) {
        const std::shared_ptr<WorkerLink> link = p.link;
        lose(p.life, "its step takes longer than the limit");
        link->close();
      }
}

Live* Dispatcher::Impl::find(Attempt attempt) {
  const auto at = attempts.find(attempt);
  return at == attempts.end() ? nullptr : at->second;
}

Dispatcher::Dispatcher(DispatcherSpec spec) : impl_(std::make_unique<Impl>(std::move(spec))) {}
Dispatcher::~Dispatcher() = default;

Admission Dispatcher::submit(Generation generation, std::shared_ptr<Listener> listener, Id& id) {
  Impl& s = *impl_;
  const auto refuse = [&s](Admission why) {
    ++s.refused;
    return why;
  };
  if (s.draining) return refuse(Admission::draining);
  const auto prompt = static_cast<int64_t>(generation.prompt.size());
  const int64_t room = s.spec.longest_sequence - prompt;
  if (prompt < 1 || generation.most_tokens < 1 || generation.most_tokens > room) return refuse(Admission::too_long);
  const bool full = ++s.waiting > s.spec.most_waiting;
  if (full || s.draining) {  // draining again: who drains may have looked at `waiting` just before
    --s.waiting;
    return refuse(full ? Admission::overloaded : Admission::draining);
  }
  id = s.next_id++;
  s.post([&s, id, g = std::move(generation), l = std::move(listener), now = Clock::now()]() mutable {
    s.arrive(id, std::move(g), std::move(l), now);
  });
  return Admission::accepted;
}

void Dispatcher::cancel(Id id) {
  impl_->post([s = impl_.get(), id] { s->end(id, Finish::cancelled, ""); });
}

bool Dispatcher::ready() const {
  const Impl& s = *impl_;
  if (s.draining) return false;
  const std::scoped_lock lock(s.state_mutex);
  return std::all_of(s.pools.begin(), s.pools.end(), [](const PlacePool& pool) {
    return std::any_of(pool.places.begin(), pool.places.end(), [](const Place& p) { return p.link != nullptr; });
  });
}

int64_t Dispatcher::longest_sequence() const { return impl_->spec.longest_sequence; }

double Dispatcher::retry_after_s() const {
  const std::scoped_lock lock(impl_->state_mutex);
  return std::clamp(std::ceil(impl_->first_token_s), kLeastRetry, kMostRetry);
}

ServiceStats Dispatcher::stats() const {
  const Impl& s = *impl_;
  const std::scoped_lock lock(s.state_mutex);
  ServiceStats out = s.counts;
  out.refused = s.refused;
  for (const auto& [id, l] : s.lives) ++(l->worker < 0 ? out.queued : out.running);
  for (const PlacePool& pool : s.pools)
    for (size_t i = 0; i < pool.places.size(); ++i) {
      const Place& p = pool.places[i];
      const Pulse pulse = summed(p.before, p.link ? p.link->pulse() : Pulse{});
      out.workers.push_back({worker_name(pool.stage, static_cast<int>(i)), role_of(pool.stage), p.link != nullptr,
                             pulse.waiting, pulse.running, p.hello.kv_blocks, pulse.kv_blocks_used, pulse.preemptions,
                             std::max<int64_t>(0, p.lives - 1), pulse.prompt_tokens, pulse.cached_prompt_tokens,
                             pulse.generated_tokens, pulse.steps, pulse.step_seconds, pulse.drafts, pulse.draft_tokens,
                             pulse.accepted_tokens});
      out.kv_transfers += pulse.kv_transfers, out.kv_transfers_failed += pulse.kv_transfers_failed;
      out.kv_transferred_bytes += pulse.kv_transferred_bytes, out.kv_transfer_seconds += pulse.kv_transfer_seconds;
    }
  return out;
}

Dispatcher::Life Dispatcher::new_life() { return impl_->next_life++; }

void Dispatcher::join(Life life, const Hello& hello, std::shared_ptr<WorkerLink> link) {
  Impl& s = *impl_;
  for (size_t p = 0; p < s.pools.size(); ++p)  // pools and their sizes never change
    for (size_t i = 0; i < s.pools[p].places.size(); ++i) {
      if (worker_name(s.pools[p].stage, static_cast<int>(i)) != hello.name) continue;
      return s.post([&s, hello, link = std::move(link), life, p, i]() mutable {
        s.join(hello, std::move(link), life, static_cast<int>(p), static_cast<int>(i));
      });
    }
  throw core::Error("worker '" + hello.name.substr(0, 60) + "': the deployment has none of this name");
}

void Dispatcher::news(Life life, std::vector<News> news) {
  impl_->post([s = impl_.get(), life, news = std::move(news)]() mutable {
    const auto at = s->where.find(life);
    if (at != s->where.end()) s->take_news(at->second.first, at->second.second, news);
  });
}

void Dispatcher::lost(Life life, const std::string& reason) {
  impl_->post([s = impl_.get(), life, reason] { s->lose(life, reason); });
}

void Dispatcher::begin_drain() { impl_->draining = true; }

bool Dispatcher::drain(double seconds) {
  begin_drain();
  Impl& s = *impl_;
  // What was accepted before is in `lives` once the inbox has been seen.
  auto seen = std::make_shared<std::atomic<bool>>(false);
  s.post([seen] { *seen = true; });
  std::unique_lock lock(s.state_mutex);
  const auto done = [&] { return *seen && s.lives.empty() && s.waiting == 0 && !s.delivering; };
  const auto limit = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  while (!done() && Clock::now() < limit) s.emptied.wait_until(lock, std::min(limit, Clock::now() + kHeartbeat));
  if (done()) return true;
  s.post([&s] {
    while (!s.lives.empty()) s.end(s.lives.begin()->first, Finish::cancelled, "the server is stopping");
  });
  return false;
}

}  // namespace drydock::runtime
