#include "runtime/local_fleet.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "core/error.h"

namespace drydock::runtime {
namespace {

constexpr std::chrono::milliseconds kLongestPause{30'000};

class LocalLink : public WorkerLink {
 public:
  LocalLink(std::shared_ptr<Worker> worker, LocalKv& kv) : worker_(std::move(worker)), kv_(kv) {}
  void start(const Start& start) override { worker_->start(start); }
  void cancel(Attempt attempt) override { worker_->cancel(attempt); }
  void release(Attempt attempt) override { worker_->release(attempt); }
  Pulse pulse() const override { return worker_->pulse(); }
  // Its engine may be stuck: who waits for KV from it is told now.
  void close() override {
    kv_.remove(worker_->hello().name, worker_.get());
    worker_->forget_all();
  }

 private:
  std::shared_ptr<Worker> worker_;
  LocalKv& kv_;  // outlives it
};

}  // namespace

struct LocalFleet::Impl {
  struct Member : WorkerSink {
    Impl* fleet = nullptr;
    LocalWorker plan;
    std::shared_ptr<Worker> worker;
    std::atomic<Dispatcher::Life> life{0};
    Clock::time_point again{};  // when it is begun anew, while it is dead
    std::chrono::milliseconds pause{};
    bool dead = false;

    void news(std::vector<News> news) override { fleet->dispatcher.news(life, std::move(news)); }
    void lost(const std::string& reason) override {
      fleet->dispatcher.lost(life, reason);
      const std::scoped_lock lock(fleet->mutex);
      fleet->failure = plan.spec.name + ": " + reason;
      dead = true;
      again = Clock::now() + pause;
      pause = std::min(2 * pause, kLongestPause);
      fleet->wake.notify_all();
    }
  };

  explicit Impl(Dispatcher& d) : dispatcher(d) {}

  void begin(Member& m) {
    auto engine = m.plan.engine();
    const auto connect = [this](const std::string& name) { return kv.connect(name); };
    m.plan.spec.kv_address = m.plan.spec.name;
    // Its life is known before it can have anything to tell.
    m.life = dispatcher.new_life();
    auto worker = std::make_shared<Worker>(m.plan.spec, std::move(engine), m, connect);
    kv.add(m.plan.spec.name, worker.get());
    {
      const std::scoped_lock lock(mutex);
      m.worker = worker;
    }
    dispatcher.join(m.life, worker->hello(), std::make_shared<LocalLink>(worker, kv));
  }

  // The dispatcher may still hold its end of a dead worker; it goes here, not on the dispatcher's thread.
  void bury(Member& m, std::unique_lock<std::mutex>& lock) {
    if (!m.worker) return;
    lock.unlock();
    kv.remove(m.plan.spec.name);
    lock.lock();
    graves.push_back(std::move(m.worker));
  }

  // Workers tell their members: none may live longer, on the dispatcher's end.
  void end() {
    for (const auto& m : members) {
      kv.remove(m->plan.spec.name);
      dispatcher.lost(m->life, "the worker is stopping");
    }
    for (const auto& m : members)
      while (m->worker.use_count() > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    for (const auto& worker : graves)
      while (worker.use_count() > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    // Their threads may still be telling of a failure: they end here, while everything they tell it to is alive.
    for (const auto& m : members) m->worker.reset();
    graves.clear();
  }

  void run() {
    std::unique_lock lock(mutex);
    while (!stopping) {
      for (const auto& m : members) {
        if (!m->dead) continue;
        bury(*m, lock);
        if (Clock::now() < m->again) continue;
        m->dead = false;
        lock.unlock();
        try {
          begin(*m);
          lock.lock();
        } catch (const core::Error& error) {
          lock.lock();
          failure = m->plan.spec.name + ": " + error.what();
          m->dead = true;
          m->again = Clock::now() + m->pause;
          m->pause = std::min(2 * m->pause, kLongestPause);
        }
      }
      const auto unheld = std::partition(graves.begin(), graves.end(), [](const auto& w) { return w.use_count() > 1; });
      std::vector<std::shared_ptr<Worker>> gone(std::make_move_iterator(unheld), std::make_move_iterator(graves.end()));
      graves.erase(unheld, graves.end());
      if (!gone.empty()) {
        lock.unlock();
        gone.clear();
        lock.lock();
        continue;
      }
      const bool watching =
          !graves.empty() || std::any_of(members.begin(), members.end(), [](const auto& m) { return m->dead; });
      if (watching)
        wake.wait_for(lock, std::chrono::milliseconds(50));
      else
        wake.wait(lock);
    }
  }

  Dispatcher& dispatcher;
  LocalKv kv;
  std::vector<std::unique_ptr<Member>> members;
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::shared_ptr<Worker>> graves;
  std::string failure;
  bool stopping = false;
  std::thread thread;
};

LocalFleet::LocalFleet(Dispatcher& dispatcher, std::vector<LocalWorker> workers, std::chrono::milliseconds pause)
    : impl_(std::make_unique<Impl>(dispatcher)) {
  for (LocalWorker& plan : workers) {
    impl_->members.push_back(std::make_unique<Impl::Member>());
    impl_->members.back()->fleet = impl_.get();
    impl_->members.back()->plan = std::move(plan);
    impl_->members.back()->pause = pause;
  }
  try {
    for (const auto& m : impl_->members) impl_->begin(*m);
  } catch (...) {
    impl_->end();
    throw;
  }
  impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
}

LocalFleet::~LocalFleet() {
  {
    const std::scoped_lock lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wake.notify_all();
  impl_->thread.join();
  impl_->end();
}

void LocalFleet::check() const {
  std::vector<std::shared_ptr<Worker>> workers;
  {
    const std::scoped_lock lock(impl_->mutex);
    for (const auto& m : impl_->members)
      if (m->worker) workers.push_back(m->worker);
  }
  for (const auto& worker : workers) worker->check();
}

std::string LocalFleet::failure() const {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->failure;
}

}  // namespace drydock::runtime
