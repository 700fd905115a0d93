// Workers that die, come back, are added and drained.
#include <algorithm>

#include "simulator/cluster_state.h"

namespace drydock::simulator {

// The worker is gone with its KV. Steps that were over by now have reached the clients.
void Cluster::Impl::fail(const Failure& f) {
  PoolRun& pool = *pools[static_cast<size_t>(f.pool)];
  if (f.worker < 0 || static_cast<size_t>(f.worker) >= pool.members.size()) return;  // not there, maybe not yet
  Member& m = *pool.members[static_cast<size_t>(f.worker)];
  if (!m.alive) return;
  if (f.kind == Failure::Kind::slows) {
    m.worker.factor = f.slowdown;
    if (f.restart_us < kNever) push(now + f.restart_us, Event::Kind::recovers, f.pool, f.worker);
    return cut(f.pool, f.worker);
  }
  if (const int64_t over = m.worker.steps_over(now); over > 0) end_run(f.pool, f.worker, over, now);
  m.worker.settle();  // what requests have is asked when they move
  m.alive = false;
  m.returns = f.restart_us < kNever;
  m.until_us = now;
  ++m.version;
  ++m.life;
  m.lent = 0;
  push(now + spec.detection_us, Event::Kind::noticed, f.pool, f.worker);
  if (f.restart_us < kNever)
    push(now + std::max(f.restart_us, spec.detection_us), Event::Kind::restart, f.pool, f.worker);
}

void Cluster::Impl::notice(int pool_index, int worker) {
  PoolRun& pool = *pools[static_cast<size_t>(pool_index)];
  Member& m = *pool.members[static_cast<size_t>(worker)];
  pool.router.set_alive(worker, false);
  std::vector<int> stranded;
  for (size_t i = 0; i < lives.size(); ++i) {
    Live& l = lives[i];
    if (l.pool < 0 || l.record.last_us > 0) continue;
    const bool here = l.routed && l.pool == pool_index && l.worker == worker;
    const bool kv_here_lost = pool_index == 0 && l.source_worker == worker && l.source_life < m.life;
    if (here || kv_here_lost) stranded.push_back(static_cast<int>(i));
  }
  std::stable_sort(stranded.begin(), stranded.end(), [&](int a, int b) {
    return lives[static_cast<size_t>(a)].record.arrival_us < lives[static_cast<size_t>(b)].record.arrival_us;
  });
  for (const int index : stranded) move_elsewhere(index);
  if (!m.returns || m.draining) retire(pool, worker);
}

// Prompt and generated tokens are replayed on another worker; past the limit the request is lost.
void Cluster::Impl::move_elsewhere(int index) {
  Live& l = lives[static_cast<size_t>(index)];
  const int pool = l.pool, worker = l.worker, rank = l.rank;
  int64_t generated = 0;
  if (worker < 0) {
    std::erase(pools[static_cast<size_t>(pool)]->homeless, index);
  } else if (l.id >= 0) {
    Member& m = *pools[static_cast<size_t>(pool)]->members[static_cast<size_t>(worker)];
    scheduler::Scheduler& s = m.worker.rank(rank);
    if (pool + 1 == static_cast<int>(pools.size())) generated = std::min(s.generated(l.id), l.left - 1);
    if (m.alive) s.stop(l.id), wake(pool, worker, rank);  // its KV was to come from the dead worker
    retire_if_drained(pool, worker);
  }
  unroute(l);
  give_back_source(l);
  ++l.version;
  l.id = -1;
  l.prefilled = false;
  const auto again =
      scheduler::migrate({spec.migration_limit}, {l.prompt, generated, l.left - generated, l.record.migrations});
  if (!again) {
    l.record.lost = true;
    l.record.last_us = now;
    return close(index);
  }
  totals.replayed_tokens += again->prompt_tokens;
  ++totals.migrations;
  ++l.record.migrations;
  l.prompt = again->prompt_tokens;
  l.left = again->output_tokens_left;
  dispatch(index);
}

void Cluster::Impl::restart(int pool_index, int worker) {
  PoolRun& pool = *pools[static_cast<size_t>(pool_index)];
  Member& m = *pool.members[static_cast<size_t>(worker)];
  if (m.retired) return;
  const PoolSpec& p = pool.spec;
  const double factor = m.worker.factor;
  count(m.worker.counters());
  m.worker = Worker(p.policy, p.ranks, p.kv_blocks, p.block_tokens, *p.price);
  m.worker.factor = factor;
  for (auto& owner : m.owners) owner.clear();
  m.alive = true;
  m.last_decode_us = 0;
  m.since_us = now - (m.until_us < kNever ? m.until_us - m.since_us : 0);  // time there before counts on
  m.until_us = kNever;
  pool.router.set_alive(worker, true);
  house(pool_index);
}

// Who found no worker tries again.
void Cluster::Impl::house(int pool_index) {
  std::vector<int> homeless = std::move(pools[static_cast<size_t>(pool_index)]->homeless);
  pools[static_cast<size_t>(pool_index)]->homeless.clear();
  for (const int index : homeless) send(index, pool_index);
}

void Cluster::Impl::retire(PoolRun& pool, int worker) {
  Member& m = *pool.members[static_cast<size_t>(worker)];
  if (m.retired) return;
  if (m.alive || m.until_us == kNever) m.until_us = now;
  m.retired = true;
  m.alive = false;
  pool.router.remove(worker);
}

// A draining worker goes once nobody needs it, or the KV on it, any more.
void Cluster::Impl::retire_if_drained(int pool, int worker) {
  Member& m = *pools[static_cast<size_t>(pool)]->members[static_cast<size_t>(worker)];
  if (!m.draining || !m.alive || m.ending || m.lent > 0) return;
  if (m.worker.running() + m.worker.waiting() == 0) retire(*pools[static_cast<size_t>(pool)], worker);
}

// What changes its speed shows from the next step on.
void Cluster::Impl::cut(int pool, int worker) {
  Member& m = *pools[static_cast<size_t>(pool)]->members[static_cast<size_t>(worker)];
  if (m.alive && m.worker.cut(now)) push(m.worker.run().end_us(), Event::Kind::run_end, pool, worker, ++m.version);
}

void Cluster::scale(int pool_index, int workers, double start_up_us) {
  Impl& s = *impl_;
  PoolRun& pool = *s.pools[static_cast<size_t>(pool_index)];
  std::vector<int> there;
  for (size_t i = 0; i < pool.members.size(); ++i)
    if (!pool.members[i]->retired && !pool.members[i]->draining) there.push_back(static_cast<int>(i));
  for (auto count = static_cast<int>(there.size()); count < workers; ++count) {
    const int index = pool.add(s.now);
    pool.members.back()->alive = false;
    pool.members.back()->since_us = kNever;
    pool.router.set_alive(index, false);
    s.push(s.now + start_up_us, Impl::Event::Kind::restart, pool_index, index);
  }
  // The last to come goes first: one that is still starting has nothing to drain.
  for (auto count = static_cast<int>(there.size()); count > workers && count > 0; --count) {
    const int index = there[static_cast<size_t>(count - 1)];
    Member& m = *pool.members[static_cast<size_t>(index)];
    m.draining = true;
    pool.router.drain(index);
    if (m.alive)
      s.retire_if_drained(pool_index, index);
    else if (m.life == 0)  // still starting; one that died is retired when that is noticed
      s.retire(pool, index);
  }
}

}  // namespace drydock::simulator
