#include "runtime/worker.h"

#include <algorithm>
#include <cmath>
#include <future>
#include <stdexcept>

#include "core/error.h"
#include "runtime/worker_state.h"

namespace drydock::runtime {
namespace {

scheduler::Policy counting(scheduler::Policy policy) {
  policy.counts_tokens = true;
  policy.decode_growth = 1;
  return policy;
}

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

std::chrono::nanoseconds link_ns(double us) { return std::chrono::nanoseconds(std::llround(us * 1e3)); }

}  // namespace

double KvLink::free_in_us() const {
  const std::scoped_lock lock(mutex_);
  return std::max(0.0, std::chrono::duration<double, std::micro>(free_ - Clock::now()).count());
}

double KvLink::take(double wire_us, double other_us) {
  const std::scoped_lock lock(mutex_);
  const Clock::time_point now = Clock::now();
  const Clock::time_point begin = std::max({now, free_, now + link_ns(other_us)});
  free_ = begin + link_ns(wire_us);
  return std::chrono::duration<double, std::micro>(free_ - now).count();
}

void KvLink::taken(double us) {
  const std::scoped_lock lock(mutex_);
  free_ = std::max(free_, Clock::now() + link_ns(us));
}

Worker::Impl::Impl(WorkerSpec given, std::unique_ptr<Engine> made, WorkerSink& told, KvConnect connect)
    : spec(std::move(given)),
      engine(std::move(made)),
      sink(told),
      counts_bytes(engine->kv_block_bytes() > 0),
      overlaps(spec.overlap && engine->overlaps() && engine->ranks() == 1 && spec.policy.decode_tokens == 1 &&
               spec.policy.result_delay == 0),
      hasher(spec.block_tokens) {
  spec.policy = counting(spec.policy);
  const auto count = static_cast<size_t>(engine->ranks());
  for (size_t r = 0; r < count; ++r) ranks.emplace_back(spec.policy, spec.kv_blocks, spec.block_tokens);
  owners.resize(count);
  work.resize(count);
  active.resize(count);
  if (spec.stage == Stage::decode)
    receiver = std::make_unique<KvReceiver>(
        std::move(connect), engine->kv_block_bytes(),
        KvReceiver::Hooks{
            [this] { return link.free_in_us(); }, [this](double us) { link.taken(us); },
            [this](Attempt attempt, int64_t first, std::span<const std::byte> bytes) {
              auto written = std::make_shared<std::promise<bool>>();
              auto future = written->get_future();
              post([this, attempt, first, bytes, written] {
                try {
                  written->set_value(write_kv(attempt, first, bytes));
                } catch (...) {
                  written->set_value(false);  // the engine has failed, and nobody here waits for the sequence any more
                  throw;
                }
              });
              return future.get();
            },
            [this](Attempt attempt, bool came, const std::string& reason) { kv_done(attempt, came, reason); }});
  engine->when_lost([this](const std::string& reason) { post([reason] { throw core::Error(reason); }); });
  thread = std::thread([this] { run(); });
}

Worker::Impl::~Impl() {
  {
    const std::scoped_lock lock(mutex);
    stopping = true;
  }
  wake.notify_all();
  thread.join();
  // Before what its thread may still use. Not by reset(): what its end runs in this thread's place asks for it.
  delete receiver.get();
  static_cast<void>(receiver.release());
  engine.reset();  // before what it may tell of its loss to
}

// A task that comes when the thread has ended is run at once: whoever waits for it goes on. What the failed engine says
// to it is known already.
void Worker::Impl::post(std::function<void()> task) {
  {
    const std::scoped_lock lock(mutex);
    if (!dead) {
      tasks.push_back(std::move(task));
      wake.notify_all();
      return;
    }
  }
  const std::scoped_lock lock(dead_mutex);
  try {
    task();
  } catch (const std::exception&) {
  }
}

void Worker::Impl::run() {
  std::string reason;
  try {
    bool idle = true;
    while (wait_for_tasks(idle)) {
      run_taken();
      idle = !step();
      if (idle) engine->idle();
      publish();
      flush();
    }
  } catch (const std::exception& error) {  // a defect or a lack of memory costs this worker, not its neighbours
    reason = error.what();
  }
  // Nobody may wait for a thread that is no more: what was taken and not begun is done as well.
  for (;;) {
    try {
      run_taken();
    } catch (const std::exception&) {
      continue;  // said already; with the next task
    }
    const std::scoped_lock lock(mutex);
    taken.swap(tasks);
    dead = taken.empty();
    if (dead) break;
  }
  if (!reason.empty()) sink.lost(reason);
}

// One that throws is not run again.
void Worker::Impl::run_taken() {
  while (next_taken < taken.size()) taken[next_taken++]();
  taken.clear();
  next_taken = 0;
}

// False: the thread is to end. With nothing to step, waits for something new.
bool Worker::Impl::wait_for_tasks(bool idle) {
  std::unique_lock lock(mutex);
  if (idle) wake.wait(lock, [this] { return stopping || !tasks.empty(); });
  taken.swap(tasks);
  return !stopping;
}

void Worker::Impl::flush() {
  if (news_.empty()) return;
  sink.news(std::move(news_));
  news_.clear();
}

void Worker::Impl::publish() {
  counts.waiting = counts.running = counts.kv_blocks_used = 0;
  counts.preemptions = 0;
  for (const scheduler::Scheduler& s : ranks) {
    counts.waiting += s.waiting();
    counts.running += s.running();
    counts.kv_blocks_used += s.total_blocks() - s.free_blocks();
    counts.preemptions += s.counters().preemptions;
  }
  const std::scoped_lock lock(mutex);
  shown = counts;
}

Sequence* Worker::Impl::find(Attempt attempt) {
  const auto at = sequences.find(attempt);
  return at == sequences.end() ? nullptr : at->second;
}

void Worker::Impl::check() const {
  for (const scheduler::Scheduler& s : ranks) {
    s.check();
    if (sequences.empty() && held.empty() && s.running() == 0 && s.free_blocks() != s.total_blocks())
      throw std::logic_error(spec.name + ": nothing runs, and blocks are held");
  }
}

Worker::Worker(WorkerSpec spec, std::unique_ptr<Engine> engine, WorkerSink& sink, KvConnect connect)
    : impl_(std::make_unique<Impl>(std::move(spec), std::move(engine), sink, std::move(connect))) {}
Worker::~Worker() = default;

void Worker::start(Start start) {
  impl_->post([impl = impl_.get(), start = std::move(start)]() mutable { impl->submit(std::move(start)); });
}
void Worker::cancel(Attempt attempt) {
  impl_->post([impl = impl_.get(), attempt] { impl->cancel(attempt); });
}
void Worker::release(Attempt attempt) {
  impl_->post([impl = impl_.get(), attempt] { impl->release(attempt); });
}
void Worker::forget_all() {
  impl_->post([impl = impl_.get()] { impl->forget_all(); });
}
void Worker::fetch(const KvFetch& fetch, std::function<void(KvPiece)> answer) {
  impl_->fetch(fetch, std::move(answer));
}

Hello Worker::hello() const {
  const WorkerSpec& s = impl_->spec;
  return {s.name, s.kv_address, s.kv_blocks * static_cast<int64_t>(impl_->ranks.size()), s.block_tokens,
          static_cast<int64_t>(impl_->ranks.size())};
}

Pulse Worker::pulse() const {
  Pulse out;
  {
    const std::scoped_lock lock(impl_->mutex);
    out = impl_->shown;
  }
  if (impl_->receiver) {
    const KvTotals totals = impl_->receiver->totals();
    out.kv_transfers = totals.transfers, out.kv_transfers_failed = totals.failed;
    out.kv_transferred_bytes = totals.bytes, out.kv_transfer_seconds = totals.seconds;
  }
  const int64_t began = impl_->step_began_ns;
  if (began > 0) out.step_age_seconds = static_cast<double>(now_ns() - began) * 1e-9;
  return out;
}

void Worker::check() const {
  std::promise<void> done;
  impl_->post([&] {
    try {
      impl_->check();
      done.set_value();
    } catch (...) {
      done.set_exception(std::current_exception());
    }
  });
  done.get_future().get();
}

// What follows is here so that it has now_ns().
bool Worker::Impl::whole_step() {
  Flight& flight = flights.front();
  if (!form(flight)) return false;
  flush();  // refusals
  step_began_ns = now_ns();
  engine->step(work, result);
  step_began_ns = 0;
  ++counts.steps;
  counts.step_seconds += result.us * 1e-6;
  count_won(flight);
  complete_step();
  take_results(flight);
  flight.drawn.clear();
  return true;
}

// Begins a step of what there is to run. False: there is nothing.
bool Worker::Impl::launch_step() {
  Flight& flight = flights[(oldest + under_way) % flights.size()];
  const Clock::time_point begin = Clock::now();
  if (!form(flight)) return false;
  flush();  // refusals
  if (under_way == 0) step_began_ns = now_ns();
  engine->launch(work);
  if (under_way == 0) step_began = Clock::now();
  // How many tokens it makes is known: the scheduler may go on.
  complete_step();
  for (size_t i = 0; i < flight.drawn.size(); ++i) {
    ++flight.drawn[i].sequence->unknown;
    flight.drawn[i].sequence->output = static_cast<int64_t>(i);
  }
  ++under_way;
  constexpr double kForget = 0.95;
  const double us = std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
  forming_us = std::max(us, kForget * forming_us);
  return true;
}

void Worker::Impl::land_step() {
  engine->wait(result);
  Flight& flight = flights[oldest];
  oldest = (oldest + 1) % flights.size();
  --under_way;
  step_began = Clock::now();
  step_began_ns = under_way > 0 ? now_ns() : 0;
  ++counts.steps;
  counts.step_seconds += result.us * 1e-6;
  if (!flight.prompts) forecast.add(result.us, flight.sequences);
  for (const Drawn& d : flight.drawn) --d.sequence->unknown;
  count_won(flight);
  take_results(flight);
  flight.drawn.clear();
}

}  // namespace drydock::runtime
