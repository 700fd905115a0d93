#include "simulator/cluster.h"

#include <algorithm>
#include <cassert>
#include <queue>
#include <utility>

#include "simulator/cluster_state.h"

namespace drydock::simulator {

Cluster::Impl::Impl(ClusterSpec given) : spec(std::move(given)) {
  for (const PoolSpec& p : spec.pools) {
    pools.push_back(std::make_unique<PoolRun>(p, spec.router));
    for (int i = 0; i < p.replicas; ++i) pools.back()->add(0);
  }
  totals.busy_us.resize(pools.size());
  totals.worker_us.resize(pools.size());
  totals.decode_sequence_us.resize(pools.size());
  for (size_t i = 0; i < spec.failures.size(); ++i)
    push(spec.failures[i].at_us, Event::Kind::failure, spec.failures[i].pool, static_cast<int>(i));
}

PoolRun::PoolRun(const PoolSpec& pool, const scheduler::RouterConfig& config) : spec(pool), router(config, 0) {}

int PoolRun::add(double now_us) {
  router.add_worker();
  members.push_back(
      std::make_unique<Member>(Member{Worker(spec.policy, spec.ranks, spec.kv_blocks, spec.block_tokens, *spec.price),
                                      std::vector<std::vector<int>>(static_cast<size_t>(spec.ranks)),
                                      0,
                                      0,
                                      false,
                                      true,
                                      false,
                                      0,
                                      0,
                                      now_us}));
  return static_cast<int>(members.size()) - 1;
}

void Cluster::Impl::push(double at_us, Event::Kind kind, int pool, int index, uint32_t version) {
  events.push({at_us, sequence++, kind, pool, index, version});
}

int Cluster::Impl::new_live() {
  if (unused.empty()) {
    unused.push_back(static_cast<int>(lives.size()));
    lives.emplace_back();
  }
  const int index = unused.back();
  unused.pop_back();
  lives[static_cast<size_t>(index)].reset();
  ++in_flight;
  return index;
}

// The request's answer is over, whichever way.
void Cluster::Impl::close(int index) {
  Live& l = lives[static_cast<size_t>(index)];
  const RequestRecord record = l.record;
  const int64_t tag = l.tag;
  unused.push_back(index);
  --in_flight;
  totals.lost += record.lost;
  totals.rejected += record.rejected;
  observer->done(record);
  if (++closed == spec.steady_after) totals.steady_us = now, totals.tokens_at_steady = tokens_so_far();
  load->finished(tag, std::max(now, record.last_us));
  if (observer->enough()) stopped = true;
}

void Cluster::Impl::arrive(const Arrival& a) {
  const int index = new_live();
  Live& l = lives[static_cast<size_t>(index)];
  l.record.arrival_us = a.at_us;
  l.record.prompt_tokens = a.prompt_tokens;
  l.record.output_tokens = a.output_tokens;
  l.record.warmup = a.warmup;
  l.record.started_us = l.record.first_us = -1;
  l.tag = a.tag;
  l.priority = a.priority;
  l.prompt = a.prompt_tokens;
  l.left = a.output_tokens;
  l.hashes.assign(a.hashes.begin(), a.hashes.end());
  dispatch(index);
}

// To the first pool that works on it.
void Cluster::Impl::dispatch(int index) {
  Live& l = lives[static_cast<size_t>(index)];
  l.local = pools.size() == 1 || l.prompt < spec.local_prefill_tokens;
  send(index, l.local ? static_cast<int>(pools.size()) - 1 : 0);
}

int Cluster::Impl::choose(PoolRun& pool, const Live& l) {
  if (pool.members.size() == 1) return pool.router.route(l.prompt, {}, now);
  overlaps.clear();
  if (spec.router.policy == scheduler::RouterPolicy::kv_aware && !l.hashes.empty())
    for (const auto& m : pool.members) {
      int64_t most = 0;
      for (int r = 0; m->alive && r < m->worker.ranks(); ++r)
        most = std::max(most, m->worker.rank(r).cached_prefix_tokens(l.hashes, l.prompt));
      overlaps.push_back(most);
    }
  return pool.router.route(l.prompt, overlaps, now);
}

void Cluster::Impl::send(int index, int pool_index) {
  PoolRun& pool = *pools[static_cast<size_t>(pool_index)];
  Live& l = lives[static_cast<size_t>(index)];
  l.pool = pool_index;
  l.id = -1;
  l.worker = choose(pool, l);
  if (l.worker < 0) {
    pool.homeless.push_back(index);
    return;
  }
  Member& m = *pool.members[static_cast<size_t>(l.worker)];
  pool.router.started(l.worker, l.prompt, 0);
  l.routed = true;
  if (m.alive) submit(index, m);  // else dead, and nobody knows yet
}

scheduler::Request Cluster::Impl::request_of(const Live& l, const PoolRun& pool) const {
  scheduler::Request r;
  r.prompt_tokens = l.prompt;
  r.output_tokens = l.left;
  r.hashes = l.hashes;
  r.priority = l.priority;
  if (pool.spec.stage == Stage::prefill) {
    r.output_tokens = 1;
    r.keeps_kv = true;
  } else {
    r.prefilled = pool.spec.stage == Stage::decode && !l.local;
    const double growth = pool.spec.policy.decode_growth;
    if (growth > 1) r.decode_steps = std::llround(static_cast<double>(l.left - 1) / growth);
  }
  return r;
}

void Cluster::Impl::submit(int index, Member& m) {
  Live& l = lives[static_cast<size_t>(index)];
  PoolRun& pool = *pools[static_cast<size_t>(l.pool)];
  l.rank = 0;
  if (m.worker.ranks() > 1) {
    tokens.clear(), sequences.clear();
    for (int r = 0; r < m.worker.ranks(); ++r) {
      const scheduler::Scheduler& s = m.worker.rank(r);
      tokens.push_back(s.running() + s.waiting());  // sequences even the ranks out better than prompts in the queue do
      sequences.push_back(s.waiting_tokens());
    }
    l.rank = std::max(0, scheduler::least_loaded_rank(tokens, sequences));
  }
  scheduler::Scheduler& s = m.worker.rank(l.rank);
  const scheduler::Request request = request_of(l, pool);
  if (!s.can_run(request)) {
    l.record.rejected = true;
    l.record.last_us = now;
    unroute(l);
    give_back_source(l);
    return close(index);
  }
  l.id = s.add(request);
  auto& owner = m.owners[static_cast<size_t>(l.rank)];
  if (static_cast<size_t>(l.id) >= owner.size()) owner.resize(static_cast<size_t>(l.id) + 1, -1);
  owner[static_cast<size_t>(l.id)] = index;
  wake(l.pool, l.worker, l.rank);
}

// Gives the router its counts back.
void Cluster::Impl::unroute(Live& l) {
  if (!l.routed) return;
  scheduler::Router& router = pools[static_cast<size_t>(l.pool)]->router;
  l.routed = false;
  if (l.prefilled)
    router.finished(l.worker, l.prompt, 0);
  else
    router.abandoned(l.worker, l.prompt, 0);
}

void Cluster::Impl::wake(int pool, int worker, int rank) {
  Member& m = *pools[static_cast<size_t>(pool)]->members[static_cast<size_t>(worker)];
  if (!m.alive || m.ending) return;
  if (!m.worker.busy())
    start(pool, worker);
  else if (m.worker.interrupt(rank, now))
    push(m.worker.run().end_us(), Event::Kind::run_end, pool, worker, ++m.version);
}

void Cluster::Impl::start(int pool, int worker) {
  Member& m = *pools[static_cast<size_t>(pool)]->members[static_cast<size_t>(worker)];
  m.worker.start(now, spec.exact);
  for (int r = 0; r < m.worker.ranks(); ++r) {
    const scheduler::Batch& b = m.worker.batch(r);
    auto& owner = m.owners[static_cast<size_t>(r)];
    for (const scheduler::RequestId id : b.pulls) pull(owner[static_cast<size_t>(id)]);
    for (const scheduler::Chunk& c : b.prompts) {
      RequestRecord& record = lives[static_cast<size_t>(owner[static_cast<size_t>(c.id)])].record;
      m.prompt_tokens += c.tokens;
      if (record.started_us >= 0) continue;
      record.started_us = now;
      record.cached_tokens = c.context;
    }
  }
  if (m.worker.busy()) push(m.worker.run().end_us(), Event::Kind::run_end, pool, worker, ++m.version);
}

// KV begins to move to a decode worker that has room for it.
void Cluster::Impl::pull(int index) {
  Live& l = lives[static_cast<size_t>(index)];
  Member& from = *pools[0]->members[static_cast<size_t>(l.source_worker)];
  Member& to = *pools[static_cast<size_t>(l.pool)]->members[static_cast<size_t>(l.worker)];
  const auto count = static_cast<double>(l.prompt);
  const double wire = spec.transfer.us_per_token * count * (1 - spec.transfer.overlap);
  const double begins = std::max({now, from.link_free_us, to.link_free_us});
  from.link_free_us = to.link_free_us = begins + wire;
  const double blocks = count / static_cast<double>(pools[0]->spec.block_tokens);
  push(begins + wire + spec.transfer.fixed_us + spec.transfer.us_per_block * blocks, Event::Kind::kv_here, l.pool,
       index, l.version);
}

void Cluster::Impl::kv_here(int index) {
  Live& l = lives[static_cast<size_t>(index)];
  const int pool = l.pool, worker = l.worker, rank = l.rank;
  Member& to = *pools[static_cast<size_t>(pool)]->members[static_cast<size_t>(worker)];
  if (!to.alive || pools[0]->members[static_cast<size_t>(l.source_worker)]->life != l.source_life)
    return;  // one of them died; the request moves when that is noticed
  give_back_source(l);
  if (l.record.first_us < 0) l.record.first_us = now;
  output_tokens += 1;
  pools[static_cast<size_t>(pool)]->router.first_token(worker, l.prompt, 0);
  l.prefilled = true;
  if (l.left == 1) {  // nothing to decode: the scheduler would run it once
    to.worker.rank(rank).stop(l.id);
    finish(index, now);
  } else {
    to.worker.rank(rank).arrived(l.id);
  }
  wake(pool, worker, rank);
  retire_if_drained(pool, worker);
}

// The prefill worker need not keep the KV any longer.
void Cluster::Impl::give_back_source(Live& l) {
  if (l.source_worker < 0) return;
  const int worker = std::exchange(l.source_worker, -1);
  Member& from = *pools[0]->members[static_cast<size_t>(worker)];
  if (from.life != l.source_life) return;  // it died with the KV
  from.worker.rank(l.source_rank).release(l.source_id);
  --from.lent;
  wake(0, worker, l.source_rank);
  retire_if_drained(0, worker);
}

void Cluster::Impl::run_end(int pool, int worker) {
  Member& m = *pools[static_cast<size_t>(pool)]->members[static_cast<size_t>(worker)];
  end_run(pool, worker, m.worker.run().steps, now + m.worker.run().drain_us);
  if (m.alive) start(pool, worker);
  retire_if_drained(pool, worker);
}

// So many steps of the run have reached those who wait for them.
void Cluster::Impl::end_run(int pool, int worker, int64_t steps, double prompts_us) {
  Member& m = *pools[static_cast<size_t>(pool)]->members[static_cast<size_t>(worker)];
  Run run = m.worker.run();
  run.steps = steps;
  account(pool, worker, run);
  m.ending = true;
  m.worker.finish(steps, [&](int rank, const scheduler::Progress& progress) {
    auto& owner = m.owners[static_cast<size_t>(rank)];
    for (const scheduler::RequestId id : progress.first) first_token(owner[static_cast<size_t>(id)], prompts_us);
    for (const scheduler::RequestId id : progress.finished) last_token(owner[static_cast<size_t>(id)], prompts_us);
  });
  m.ending = false;
}

void Cluster::Impl::account(int pool, int worker, const Run& run) {
  const int64_t steps = run.steps;
  const auto at = static_cast<size_t>(pool);
  Member& m = *pools[at]->members[static_cast<size_t>(worker)];
  const double us = run.line.total_us(steps);
  totals.busy_us[at] += us;
  totals.decode_sequence_us[at] += us * run.decodes;
  totals.steps += steps;
  observer->ran(pool, worker, run, m.prompt_tokens);
  m.prompt_tokens = 0;
  size_t prompts = 0;
  for (int r = 0; r < m.worker.ranks(); ++r) {
    if (!m.worker.active(r)) continue;
    prompts += m.worker.batch(r).prompts.size();
    // The last chunk of a prompt makes a token; from prefill workers the client has it later.
    if (pools[at]->spec.stage != Stage::prefill)
      for (const scheduler::Chunk& c : m.worker.batch(r).prompts) output_tokens += c.last;
  }
  output_tokens += run.tokens * static_cast<double>(steps);
  if (run.tokens <= 0) {
    // Sequences that decode wait for a step of prompts only; without any there is no gap to count.
    if (m.worker.running() <= static_cast<int64_t>(prompts)) m.last_decode_us = 0;
    return;
  }
  const double pause = m.last_decode_us > 0 ? std::max(0.0, run.start_us - m.last_decode_us) : 0;
  const double later = run.line.growth_us * static_cast<double>(steps) / 2;
  if (pause > 0 || steps == 1) {
    observer->token_gap(run.line.first_us + pause, run.tokens);
    if (steps > 1) observer->token_gap(run.line.first_us + later, run.tokens * static_cast<double>(steps - 1));
  } else {
    observer->token_gap(run.line.first_us + later - run.line.growth_us / 2, run.tokens * static_cast<double>(steps));
  }
  m.last_decode_us = run.start_us + us;
}

void Cluster::Impl::first_token(int index, double at_us) {
  Live& l = lives[static_cast<size_t>(index)];
  PoolRun& pool = *pools[static_cast<size_t>(l.pool)];
  if (pool.spec.stage == Stage::prefill) return;  // the client sees it from the decode worker
  if (l.record.first_us < 0) l.record.first_us = at_us;
  pool.router.first_token(l.worker, l.prompt, 0);
  l.prefilled = true;
}

void Cluster::Impl::last_token(int index, double prompts_us) {
  Live& l = lives[static_cast<size_t>(index)];
  if (pools[static_cast<size_t>(l.pool)]->spec.stage == Stage::prefill) {
    if (prompts_us > now) return push(prompts_us, Event::Kind::handed, l.pool, index, l.version);
    return hand_over(index);
  }
  finish(index, l.left == 1 ? prompts_us : std::max(now, l.record.first_us));
}

void Cluster::Impl::finish(int index, double at_us) {
  Live& l = lives[static_cast<size_t>(index)];
  scheduler::Router& router = pools[static_cast<size_t>(l.pool)]->router;
  router.progress(l.worker, l.left);
  router.finished(l.worker, l.prompt, l.left);
  l.record.last_us = at_us;
  l.record.worker = l.worker;
  close(index);
}

// From prefill to decode.
void Cluster::Impl::hand_over(int index) {
  Live& l = lives[static_cast<size_t>(index)];
  Member& m = *pools[0]->members[static_cast<size_t>(l.worker)];
  if (!m.alive) return;  // it died before its last pipeline stage was through; that will be noticed
  unroute(l);
  l.source_worker = l.worker;
  l.source_rank = l.rank;
  l.source_id = l.id;
  l.source_life = m.life;
  ++m.lent;
  send(index, 1);
}

bool Cluster::Impl::step(double most_us) {
  const double next_arrival = load->next_us(), next_event = events.empty() ? kNever : events.top().at_us;
  const double next = std::min(next_arrival, next_event);
  if (next == kNever || next > most_us) return false;
  if (next_arrival <= next_event) {
    idle_hooks = 0;
    now = std::max(now, next_arrival);
    arrive(load->take());
    if (load->next_us() == kNever && load->done()) note_last_arrival();
    return true;
  }
  const Event e = events.top();
  events.pop();
  if (is_stale(e)) return true;
  now = e.at_us;
  ++totals.events;
  if (e.kind != Event::Kind::hook) idle_hooks = 0;
  handle(e);
  return true;
}

// Output tokens that clients have, those of runs under way included.
double Cluster::Impl::tokens_so_far() const {
  double sum = output_tokens;
  for (const auto& pool : pools)
    for (const auto& m : pool->members)
      if (m->alive && m->worker.busy())
        sum += m->worker.run().tokens * static_cast<double>(m->worker.steps_over(now));
  return sum;
}

// Up to here all users were there; after it the deployment runs empty.
void Cluster::Impl::note_last_arrival() {
  totals.waiting_at_last_arrival = static_cast<double>(in_flight);
  totals.last_arrival_us = now;
  totals.tokens_at_last_arrival = tokens_so_far();
}

// A run that was cut short, or KV whose request is elsewhere by now.
bool Cluster::Impl::is_stale(const Event& e) const {
  if (e.kind == Event::Kind::run_end) {
    const Member& m = *pools[static_cast<size_t>(e.pool)]->members[static_cast<size_t>(e.index)];
    return e.version != m.version;
  }
  if (e.kind == Event::Kind::kv_here || e.kind == Event::Kind::handed)
    return lives[static_cast<size_t>(e.index)].version != e.version;
  return false;
}

void Cluster::Impl::handle(const Event& e) {
  switch (e.kind) {
    case Event::Kind::run_end:
      return run_end(e.pool, e.index);
    case Event::Kind::kv_here:
      return kv_here(e.index);
    case Event::Kind::handed:
      return hand_over(e.index);
    case Event::Kind::failure:
      return fail(spec.failures[static_cast<size_t>(e.index)]);
    case Event::Kind::noticed:
      return notice(e.pool, e.index);
    case Event::Kind::restart:
      return restart(e.pool, e.index);
    case Event::Kind::recovers:
      pools[static_cast<size_t>(e.pool)]->members[static_cast<size_t>(e.index)]->worker.factor = 1;
      return cut(e.pool, e.index);
    case Event::Kind::hook:
      return call_hook(e.index);
  }
}

// Where requests wait for workers that nothing will bring but a hook, it is asked a thousand times, and then no more.
void Cluster::Impl::call_hook(int index) {
  constexpr int kPatience = 1000;
  if ((in_flight == 0 && load->done()) || ++idle_hooks > kPatience * static_cast<int>(hooks.size())) return;
  const Hook& hook = hooks[static_cast<size_t>(index)];
  push(now + hook.interval_us, Event::Kind::hook, 0, index);
  hook.call(now);
}

void Cluster::Impl::count(const scheduler::Counters& c) {
  totals.counters.preemptions += c.preemptions;
  totals.counters.prompt_tokens += c.prompt_tokens;
  totals.counters.cached_tokens += c.cached_tokens;
  totals.counters.computed_tokens += c.computed_tokens;
}

Cluster::Cluster(ClusterSpec spec) : impl_(std::make_unique<Impl>(std::move(spec))) {}
Cluster::~Cluster() = default;

ClusterTotals Cluster::run(Load& load, Observer& observer, double most_us) {
  Impl& s = *impl_;
  s.load = &load;
  s.observer = &observer;
  while (!s.stopped && s.step(most_us)) continue;
  ClusterTotals& t = s.totals;
  t.end_us = s.now;
  t.unfinished = s.in_flight;
  for (size_t p = 0; p < s.pools.size(); ++p)
    for (const auto& m : s.pools[p]->members) {
      s.count(m->worker.counters());
      t.worker_us[p] += std::max(0.0, std::min(m->until_us, s.now) - m->since_us);
    }
  return t;
}

double Cluster::now_us() const { return impl_->now; }

PoolState Cluster::state(int pool) const {
  PoolState out;
  for (const auto& m : impl_->pools[static_cast<size_t>(pool)]->members) {
    if (m->retired) continue;
    out.alive += m->alive;
    out.starting += !m->alive;
    if (!m->alive) continue;
    out.waiting += m->worker.waiting();
    out.running += m->worker.running();
    out.kv_share += m->worker.kv_share();
  }
  if (out.alive > 0) out.kv_share /= out.alive;
  return out;
}

void Cluster::visit(const std::function<void(const RequestRecord&)>& look) const {
  for (const Live& l : impl_->lives)
    if (l.pool >= 0 && l.record.last_us <= 0) look(l.record);
}

void Cluster::stop() { impl_->stopped = true; }

void Cluster::every(double interval_us, std::function<void(double)> hook) {
  impl_->hooks.push_back({interval_us, std::move(hook)});
  impl_->push(impl_->now + interval_us, Impl::Event::Kind::hook, 0, static_cast<int>(impl_->hooks.size()) - 1);
}

}  // namespace drydock::simulator
