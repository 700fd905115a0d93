// The way of a request: to a worker, from prefill to decode, to its end.
#include <algorithm>
#include <cmath>
#include <utility>

#include "simulator/cluster_state.h"

namespace drydock::simulator {

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
  l.record.arrival_us = a.at_us - a.waited_us;
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
  overlaps.clear();
  if (pool.members.size() == 1) return pool.router.route(l.prompt, {}, now);
  if (spec.router.policy == scheduler::RouterPolicy::kv_aware && !l.hashes.empty())
    for (const auto& m : pool.members) {
      m->worker.settle();
      overlaps.push_back(m->alive ? m->worker.cached_prefix_tokens(l.hashes, l.prompt) : 0);
    }
  return pool.router.route(l.prompt, overlaps, now);
}

// Of its prompt, what the chosen worker need not compute: what comes with its KV, or lies in the prefix cache where
// routing asked for that.
int64_t Cluster::Impl::cached_on(const PoolRun& pool, const Live& l) const {
  if (pool.spec.stage == Stage::decode && !l.local) return l.prompt;
  const auto worker = static_cast<size_t>(l.worker);
  return worker < overlaps.size() ? overlaps[worker] : 0;
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
  l.cached = cached_on(pool, l);
  pool.router.started(l.worker, l.prompt, l.cached);
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
      const scheduler::Scheduler& s = std::as_const(m.worker).rank(r);
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
    router.abandoned(l.worker, l.prompt, l.cached);
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
  pools[static_cast<size_t>(pool)]->router.first_token(worker, l.prompt, l.cached);
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

void Cluster::Impl::first_token(int index, double at_us) {
  Live& l = lives[static_cast<size_t>(index)];
  PoolRun& pool = *pools[static_cast<size_t>(l.pool)];
  if (pool.spec.stage == Stage::prefill) return;  // the client sees it from the decode worker
  if (l.record.first_us < 0) l.record.first_us = at_us;
  pool.router.first_token(l.worker, l.prompt, l.cached);
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

}  // namespace drydock::simulator
