#include "runtime/acceptor.h"

#include <algorithm>
#include <system_error>

#include "core/error.h"

namespace drydock::runtime {
namespace {
constexpr std::chrono::milliseconds kLookEvery{200};
}

Acceptor::Acceptor(const Address& address, int most, std::function<void(Socket)> serve)
    : listener_(listen_on(address, port_)), most_(static_cast<size_t>(most)), serve_(std::move(serve)) {
  thread_ = std::thread([this] { run(); });
}

Acceptor::~Acceptor() {
  stop();
  thread_.join();
  reap(true);
}

void Acceptor::stop() {
  const std::scoped_lock lock(mutex_);
  stopping_ = true;
}

int Acceptor::connections() const {
  const std::scoped_lock lock(mutex_);
  return static_cast<int>(std::count_if(served_.begin(), served_.end(), [](const Served& s) { return !s.over; }));
}

void Acceptor::run() {
  for (;;) {
    Socket socket;
    try {
      socket = accept_from(listener_, kLookEvery);
    } catch (const core::Error&) {  // poll() failed for want of memory: as if nobody had come
    }
    reap(false);
    const std::scoped_lock lock(mutex_);
    if (stopping_) return;
    if (!socket.open() || served_.size() >= most_) continue;
    Served& s = served_.emplace_back();
    try {
      s.thread = std::thread([this, &s, socket = std::move(socket)]() mutable {
        serve_(std::move(socket));
        const std::scoped_lock over(mutex_);
        s.over = true;
      });
    } catch (const std::system_error&) {  // no thread to be had: as if nobody had come
      served_.pop_back();
    }
  }
}

// Those that are over go; with `all`, the others are waited for.
void Acceptor::reap(bool all) {
  std::list<Served> gone;
  {
    const std::scoped_lock lock(mutex_);
    for (auto at = served_.begin(); at != served_.end();) {
      const auto here = at++;
      if (all || here->over) gone.splice(gone.end(), served_, here);
    }
  }
  for (Served& s : gone) s.thread.join();
}

}  // namespace drydock::runtime
