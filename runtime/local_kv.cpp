// KV between workers of one process.
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>

#include "core/error.h"
#include "runtime/worker.h"

namespace drydock::runtime {
// Who asks keeps the lock until the question is with the worker, so that a worker that was removed gets none.
struct LocalKv::State {
  struct Place {
    Worker* worker;
    uint64_t life;  // one that comes anew under its name may come to lie where the old one lay
  };
  std::mutex mutex;
  std::map<std::string, Place> workers;
  uint64_t lives = 0;
};

std::shared_ptr<LocalKv::State> LocalKv::make() { return std::make_shared<State>(); }

void LocalKv::add(const std::string& name, Worker* worker) {
  const std::scoped_lock lock(state_->mutex);
  state_->workers[name] = {worker, ++state_->lives};
}

void LocalKv::remove(const std::string& name, const Worker* worker) {
  const std::scoped_lock lock(state_->mutex);
  const auto at = state_->workers.find(name);
  if (at != state_->workers.end() && (!worker || at->second.worker == worker)) state_->workers.erase(at);
}

std::unique_ptr<KvPeer> LocalKv::connect(const std::string& name) {
  struct Answers {
    std::mutex mutex;
    std::condition_variable came;
    std::deque<KvPiece> pieces;
  };
  class Peer : public KvPeer {
   public:
    Peer(std::shared_ptr<State> state, std::string name) : state_(std::move(state)), name_(std::move(name)) {}
    void ask(const KvFetch& fetch) override {
      const std::scoped_lock lock(state_->mutex);
      place().worker->fetch(fetch, [answers = answers_](KvPiece piece) {
        const std::scoped_lock held(answers->mutex);
        answers->pieces.push_back(std::move(piece));
        answers->came.notify_one();
      });
    }
    std::optional<KvPiece> next() override {
      {
        std::unique_lock lock(answers_->mutex);
        if (answers_->came.wait_for(lock, kHeartbeat, [this] { return !answers_->pieces.empty(); })) {
          KvPiece piece = std::move(answers_->pieces.front());
          answers_->pieces.pop_front();
          return piece;
        }
      }
      const std::scoped_lock lock(state_->mutex);
      place();
      return std::nullopt;
    }

   private:
    // The worker that was asked first, not one that has come anew.
    const State::Place& place() {
      const auto at = state_->workers.find(name_);
      if (at == state_->workers.end() || (life_ > 0 && at->second.life != life_))
        throw core::Error("worker " + name_ + " is gone");
      life_ = at->second.life;
      return at->second;
    }

    uint64_t life_ = 0;
    std::shared_ptr<State> state_;
    std::string name_;
    std::shared_ptr<Answers> answers_ = std::make_shared<Answers>();
  };
  return std::make_unique<Peer>(state_, name);
}

}  // namespace drydock::runtime
