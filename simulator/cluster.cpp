#include "simulator/cluster.h"

#include <algorithm>
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
  members.push_back(std::make_unique<Member>(
      Member{.worker = Worker(spec.policy, spec.ranks, spec.kv_blocks, spec.block_tokens, *spec.price),
             .owners = std::vector<std::vector<int>>(static_cast<size_t>(spec.ranks)),
             .since_us = now_us}));
  return static_cast<int>(members.size()) - 1;
}

void Cluster::Impl::push(double at_us, Event::Kind kind, int pool, int index, uint32_t version) {
  events.push({at_us, sequence++, kind, pool, index, version});
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
  for (const int r : m.worker.renewed()) {
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
  for (const int r : m.worker.renewed()) {
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

bool Cluster::Impl::step(double most_us) {
  const double next_arrival = load->next_us(), next_event = events.empty() ? kNever : events.top().at_us;
  const double next = std::min(next_arrival, next_event);
  if (next == kNever || next > most_us) return false;
  if (next_arrival <= next_event) {
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
  handle(e);
  return true;
}

// Output tokens that clients have, those of runs under way included.
double Cluster::Impl::tokens_so_far() const {
  double sum = output_tokens;
  for (const auto& pool : pools)
    for (const auto& m : pool->members)
      if (m->alive && m->worker.busy()) sum += m->worker.run().tokens * static_cast<double>(m->worker.steps_over(now));
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

// Where nothing is left to happen but hooks, and requests wait for workers that only these could bring, they are asked
// a thousand times more.
void Cluster::Impl::call_hook(int index) {
  constexpr int kPatience = 1000;
  const bool alone = load->next_us() == kNever && events.size() < hooks.size();
  idle_hooks = alone ? idle_hooks + 1 : 0;
  if ((in_flight == 0 && load->done()) || idle_hooks > kPatience * static_cast<int>(hooks.size())) return;
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
    m->worker.settle();
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
