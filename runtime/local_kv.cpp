// KV between workers of one process.
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>

#include "core/error.h"
#include "runtime/worker.h"

namespace drydock::runtime {
namespace {
constexpr std::chrono::seconds kPatience{60};  // a step of a slow engine may be under way
}

// Who asks keeps the lock until the question is with the worker, so that a worker that was removed gets none.
struct LocalKv::State {
  std::mutex mutex;
  std::map<std::string, Worker*> workers;
};

std::shared_ptr<LocalKv::State> LocalKv::make() { return std::make_shared<State>(); }

void LocalKv::add(const std::string& name, Worker* worker) {
  const std::scoped_lock lock(state_->mutex);
  state_->workers[name] = worker;
}

void LocalKv::remove(const std::string& name) {
  const std::scoped_lock lock(state_->mutex);
  state_->workers.erase(name);
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
      const auto at = state_->workers.find(name_);
      if (at == state_->workers.end()) throw core::Error("worker " + name_ + " is gone");
      at->second->fetch(fetch, [answers = answers_](KvPiece piece) {
        const std::scoped_lock held(answers->mutex);
        answers->pieces.push_back(std::move(piece));
        answers->came.notify_one();
      });
    }
    KvPiece next() override {
      std::unique_lock lock(answers_->mutex);
      if (!answers_->came.wait_for(lock, kPatience, [this] { return !answers_->pieces.empty(); }))
        throw core::Error("worker " + name_ + " does not answer");
      KvPiece piece = std::move(answers_->pieces.front());
      answers_->pieces.pop_front();
      return piece;
    }

   private:
    std::shared_ptr<State> state_;
    std::string name_;
    std::shared_ptr<Answers> answers_ = std::make_shared<Answers>();
  };
  return std::make_unique<Peer>(state_, name);
}

}  // namespace drydock::runtime
