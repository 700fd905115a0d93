// The way of a generation: to a worker, from prefill to decode, elsewhere when a worker dies, to its end. The rules
// are those of simulator/cluster_requests.cpp and cluster_failures.cpp.
#include <algorithm>

#include "core/error.h"
#include "runtime/dispatcher_state.h"

namespace drydock::runtime {

void Dispatcher::Impl::arrive(Id id, Generation generation, std::shared_ptr<Listener> listener,
                              Clock::time_point since) {
  auto made = std::make_unique<Live>();
  Live& l = *made;
  l.id = id;
  l.generation = std::move(generation);
  l.listener = std::move(listener);
  l.since = since;
  l.prompt = static_cast<int64_t>(l.generation.prompt.size());
  if (hasher) {
    BlockHasher::Chain chain;
    hasher->extend(chain, l.generation.prompt, l.names);
  }
  if (l.generation.deadline) deadlines.emplace(*l.generation.deadline, id);
  lives[id] = std::move(made);
  ++counts.accepted;
  dispatch(l);
}

void Dispatcher::Impl::dispatch(Live& l) {
  l.local = pools.size() == 1 || l.prompt < spec.local_prefill_tokens;
  send(l, l.local ? static_cast<int>(pools.size()) - 1 : 0);
}

int Dispatcher::Impl::choose(PlacePool& pool, const Live& l) {
  overlaps.clear();
  if (pool.places.size() > 1 && hasher)
    for (const Place& p : pool.places) overlaps.push_back(p.index.matches(l.names) * spec.router.block_tokens);
  return pool.router.route(l.prompt, overlaps, now_us());
}

// Of its prompt, what the chosen worker need not compute: what comes with its KV, or what it is taken to have cached.
int64_t Dispatcher::Impl::cached_on(const PlacePool& pool, const Live& l) const {
  if (pool.stage == Stage::decode && !l.local) return l.prompt;
  const auto worker = static_cast<size_t>(l.worker);
  return worker < overlaps.size() ? std::min(overlaps[worker], l.prompt) : 0;
}

void Dispatcher::Impl::send(Live& l, int pool) {
  l.pool = pool;
  l.worker = choose(pools[static_cast<size_t>(pool)], l);
  l.homeless = l.worker < 0;
  if (l.homeless) return homeless.push_back(l.id);
  l.cached = cached_on(pools[static_cast<size_t>(pool)], l);
  pools[static_cast<size_t>(pool)].router.started(l.worker, l.prompt, l.cached);
  l.routed = true;
  l.attempt = next_attempt++;
  attempts[l.attempt] = &l;
  place(pool, l.worker).link->start(start_of(l));
}

Start Dispatcher::Impl::start_of(const Live& l) const {
  const Stage stage = pools[static_cast<size_t>(l.pool)].stage;
  Start s;
  s.attempt = l.attempt;
  s.stage = stage == Stage::decode && l.local ? Stage::whole : stage;
  s.tokens = l.generation.prompt;
  s.tokens.insert(s.tokens.end(), l.answer.begin(), l.answer.end());
  s.answered = static_cast<int64_t>(l.answer.size());
  if (s.stage == Stage::decode) {
    const Place& from = pools.front().places[static_cast<size_t>(l.source_worker)];
    s.source = {from.hello.kv_address, l.source_attempt, static_cast<int64_t>(s.tokens.size())};
    s.tokens.push_back(l.first->token);
    ++s.answered;
  }
  s.most_tokens = l.generation.most_tokens - s.answered;
  s.sampling = l.generation.sampling;
  s.stop_tokens = l.generation.stop_tokens;
  s.trace = l.generation.trace_parent;
  s.name = l.generation.id;
  return s;
}

// Who found no worker tries again.
void Dispatcher::Impl::house() {
  const std::deque<Id> again = std::exchange(homeless, {});
  for (const Id id : again) {
    const auto at = lives.find(id);
    if (at != lives.end() && at->second->homeless) send(*at->second, at->second->pool);
  }
}

void Dispatcher::Impl::unroute(Live& l) {
  if (!l.routed) return;
  scheduler::Router& router = pools[static_cast<size_t>(l.pool)].router;
  l.routed = false;
  if (l.prefilled)
    router.finished(l.worker, l.prompt, 0);
  else
    router.abandoned(l.worker, l.prompt, l.cached);
}

void Dispatcher::Impl::give_back_source(Live& l) {
  if (l.source_worker < 0) return;
  const Place& from = place(0, std::exchange(l.source_worker, -1));
  if (from.link) from.link->release(l.source_attempt);  // one that has come anew does not know the attempt
}

// No worker has anything to do with it any more.
void Dispatcher::Impl::leave_worker(Live& l) {
  if (l.attempt != 0 && l.worker >= 0) {
    const Place& p = place(l.pool, l.worker);
    if (p.link && attempts.contains(l.attempt)) p.link->cancel(l.attempt);
  }
  attempts.erase(l.attempt);
  unroute(l);
  give_back_source(l);
  l.pending.clear();
  l.first.reset();
  l.prefilled = l.homeless = false;
  l.worker = -1;
}

void Dispatcher::Impl::end(Id id, Finish finish, const std::string& reason) {
  const auto at = lives.find(id);
  if (at == lives.end()) return;
  Live& l = *at->second;
  // What has finished by itself needs no cancelling.
  if (finish == Finish::stop || finish == Finish::length) attempts.erase(l.attempt);
  leave_worker(l);
  if (!l.told_first) --waiting;
  ++(finish == Finish::failed                                    ? counts.failed
     : finish == Finish::cancelled || finish == Finish::deadline ? counts.cancelled
                                                                 : counts.finished);
  deliveries.push_back({l.listener, {}, finish, reason});
  if (l.generation.deadline) {
    auto [from, to] = deadlines.equal_range(*l.generation.deadline);
    for (; from != to; ++from)
      if (from->second == id) {
        deadlines.erase(from);
        break;
      }
  }
  lives.erase(at);
}

void Dispatcher::Impl::take_news(int pool, int worker, std::vector<News>& news) {
  for (News& n : news) {
    Live* l = find(n.attempt);
    if (l && l->pool == pool && l->worker == worker) take(*l, n);
  }
}

// News that are not due yet hold up those behind them.
void Dispatcher::Impl::take(Live& l, News& news) {
  if (news.delay_us <= 0 && l.pending.empty()) return apply(l, news);
  if (l.pending.empty()) {
    l.due = Clock::now() + std::chrono::nanoseconds(static_cast<int64_t>(news.delay_us * 1e3));
    held.emplace(l.due, l.id);
  }
  l.pending.push_back(std::move(news));
}

void Dispatcher::Impl::apply(Live& l, News& news) {
  switch (news.kind) {
    case NewsKind::tokens:
      if (!news.tokens.empty()) first_token(l);
      return tell(l, std::move(news.tokens));
    case NewsKind::finished:
      if (!news.tokens.empty()) first_token(l);
      tell(l, std::move(news.tokens));
      return end(l.id, news.finish, "");
    case NewsKind::prefilled:
      return prefilled(l, news);
    case NewsKind::kv_here:
      return kv_here(l);
    case NewsKind::kv_lost:
      return move_elsewhere(l, news.reason);
    case NewsKind::refused:
      attempts.erase(l.attempt);
      return end(l.id, Finish::failed, news.reason);
  }
}

void Dispatcher::Impl::first_token(Live& l) {
  if (l.prefilled) return;
  PlacePool& pool = pools[static_cast<size_t>(l.pool)];
  pool.router.first_token(l.worker, l.prompt, l.cached);
  l.prefilled = true;
  if (hasher) pool.places[static_cast<size_t>(l.worker)].index.add(l.names);
}

void Dispatcher::Impl::tell(Live& l, std::vector<GeneratedToken> tokens) {
  if (tokens.empty()) return;
  for (const GeneratedToken& t : tokens) l.answer.push_back(t.token);
  if (!l.told_first) {
    l.told_first = true;
    --waiting;
    constexpr double kNew = 0.1;
    const double s = std::chrono::duration<double>(Clock::now() - l.since).count();
    first_token_s += kNew * (s - first_token_s);
  }
  deliveries.push_back({l.listener, std::move(tokens), std::nullopt, {}});
}

// From prefill to decode, unless its one token was the last.
void Dispatcher::Impl::prefilled(Live& l, News& news) {
  if (pools[static_cast<size_t>(l.pool)].stage != Stage::prefill || news.tokens.size() != 1)
    return move_elsewhere(l, "its worker is out of step");
  first_token(l);
  attempts.erase(l.attempt);
  unroute(l);
  l.prefilled = false;
  l.source_worker = l.worker;
  l.source_attempt = l.attempt;
  l.worker = -1;
  const auto& stops = l.generation.stop_tokens;
  const bool stops_here = std::find(stops.begin(), stops.end(), news.tokens.front().token) != stops.end();
  if (stops_here) return end(l.id, Finish::stop, "");
  if (static_cast<int64_t>(l.answer.size()) + 1 >= l.generation.most_tokens) {
    tell(l, std::move(news.tokens));
    return end(l.id, Finish::length, "");
  }
  l.first = std::move(news.tokens.front());
  send(l, 1);
}

void Dispatcher::Impl::kv_here(Live& l) {
  if (!l.first) return;
  give_back_source(l);
  first_token(l);
  std::vector<GeneratedToken> tokens;
  tokens.push_back(std::move(*l.first));
  l.first.reset();
  tell(l, std::move(tokens));
}

void Dispatcher::Impl::join(const Hello& hello, std::shared_ptr<WorkerLink> link, Life life, int pool, int worker) {
  Place& p = place(pool, worker);
  if (p.link) {
    const std::shared_ptr<WorkerLink> old = p.link;
    lose(p.life, "another worker has come with its name");
    old->close();
  }
  p.link = std::move(link);
  p.life = life;
  p.hello = hello;
  p.index = PrefixIndex(hello.kv_blocks);
  ++p.lives;
  where[life] = {pool, worker};
  pools[static_cast<size_t>(pool)].router.set_alive(worker, true);
  house();
}

void Dispatcher::Impl::lose(Life life, const std::string& reason) {
  const auto found = where.find(life);
  if (found == where.end()) return;
  const auto [pool_index, worker] = found->second;
  where.erase(found);
  PlacePool& pool = pools[static_cast<size_t>(pool_index)];
  Place& p = pool.places[static_cast<size_t>(worker)];
  p.before = summed(p.before, p.link->pulse());
  p.before.waiting = p.before.running = p.before.kv_blocks_used = 0;
  p.link.reset();
  pool.router.set_alive(worker, false);
  // Where others can do its work, it gets none for a while after it is back.
  const bool others = std::any_of(pool.places.begin(), pool.places.end(), [](const Place& o) { return bool(o.link); });
  if (others) pool.router.inhibit(worker, now_us() + spec.inhibit_us);
  std::vector<Live*> stranded;
  for (const auto& [id, l] : lives) {
    const bool here = l->routed && l->pool == pool_index && l->worker == worker;
    const bool kv_lost = pool_index == 0 && pools.size() > 1 && l->source_worker == worker;
    if (here || kv_lost) stranded.push_back(l.get());
  }
  for (Live* l : stranded) move_elsewhere(*l, pool.places[static_cast<size_t>(worker)].hello.name + ": " + reason);
}

// The prompt and what the client has of the answer are replayed on another worker.
void Dispatcher::Impl::move_elsewhere(Live& l, const std::string& reason) {
  leave_worker(l);
  const auto generated = static_cast<int64_t>(l.answer.size());
  const auto prompt = static_cast<int64_t>(l.generation.prompt.size());
  const auto again = scheduler::migrate({spec.migration_limit},
                                        {prompt, generated, l.generation.most_tokens - generated, l.migrations});
  if (!again) return end(l.id, Finish::failed, "moved too often, last because of " + reason);
  ++counts.migrated;
  ++l.migrations;
  l.prompt = again->prompt_tokens;
  dispatch(l);
}

}  // namespace drydock::runtime
