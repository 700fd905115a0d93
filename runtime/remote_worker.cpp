#include "runtime/remote_worker.h"

#include <algorithm>
#include <condition_variable>

#include "core/error.h"
#include "runtime/channel.h"
#include "runtime/kv_port.h"

namespace drydock::runtime {
namespace {

constexpr std::chrono::milliseconds kFirstRetry{50}, kLongestRetry{1000}, kConnectLimit{2000};

}  // namespace

struct RemoteWorker::Impl : WorkerSink {
  Impl(WorkerSpec spec, std::unique_ptr<Engine> engine, RemoteWorkerOptions given) : options(std::move(given)) {
    if (spec.stage != Stage::decode) {
      port = std::make_unique<KvPort>(Address{options.host, options.kv_port}, options.secret);
      spec.kv_address = text_of({options.host, port->port()});
    }
    const auto connect = [secret = options.secret](const std::string& address) { return connect_kv(address, secret); };
    worker = std::make_unique<Worker>(std::move(spec), std::move(engine), *this, connect);
    if (port) port->serve(worker.get());
    thread = std::thread([this] { run(); });
  }

  ~Impl() override {
    {
      const std::scoped_lock lock(mutex);
      stopping = true;
      if (line) line->close();
    }
    wake.notify_all();
    thread.join();
    if (port) port->serve(nullptr);
    worker.reset();
  }

  void news(std::vector<News> news) override {
    const std::scoped_lock lock(mutex);
    if (line) line->post(FrameKind::news, encode(news));
  }

  // The router sees the connection end; whoever owns the process sees failure().
  void lost(const std::string& reason) override {
    const std::scoped_lock lock(mutex);
    failed = reason;
    if (line) line->close();
  }

  void run() {
    auto pause = kFirstRetry;
    std::unique_lock lock(mutex);
    while (!stopping && failed.empty()) {
      lock.unlock();
      if (serve()) pause = kFirstRetry;
      // What the last router wanted is nothing to the next one.
      worker->forget_all();
      lock.lock();
      wake.wait_for(lock, pause, [this] { return stopping; });
      pause = std::min(2 * pause, kLongestRetry);
    }
  }

  // True: it was joined for a while.
  bool serve() {
    std::shared_ptr<Line> now;
    bool was_joined = false;
    int frames = 0;
    try {
      Channel channel = Channel::connected(connect_to(options.router, kConnectLimit), options.secret);
      channel.send(FrameKind::hello, encode(worker->hello()));
      now = std::make_shared<Line>(std::move(channel), [this] {
        return Frame{FrameKind::pulse, encode(worker->pulse())};
      });
      {
        const std::scoped_lock lock(mutex);
        if (stopping) return false;
        line = now;
      }
      for (;;) {
        const Frame frame = now->receive();
        take(frame);
        // The first heartbeat comes before the router has looked at the name.
        was_joined |= ++frames > 1 || frame.kind != FrameKind::pulse;
        if (was_joined && !said_joined.exchange(true) && options.log) options.log("joined " + text_of(options.router));
      }
    } catch (const core::Error& error) {
      if ((said_joined.exchange(false) || last_error != error.what()) && options.log)
        options.log("router " + text_of(options.router) + ": " + error.what());
      last_error = error.what();
    }
    std::shared_ptr<Line> gone;
    const std::scoped_lock lock(mutex);
    gone = std::exchange(line, nullptr);
    return was_joined;
  }

  void take(const Frame& frame) {
    if (frame.kind == FrameKind::start)
      worker->start(decode_start(frame.body));
    else if (frame.kind == FrameKind::cancel)
      worker->cancel(decode_attempt(frame.body));
    else if (frame.kind == FrameKind::release)
      worker->release(decode_attempt(frame.body));
    else if (frame.kind == FrameKind::refusal)
      throw core::Error(decode_text(frame.body));
    else if (frame.kind != FrameKind::pulse)
      throw core::Error("a frame that routers do not send");
  }

  RemoteWorkerOptions options;
  std::unique_ptr<KvPort> port;
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::shared_ptr<Line> line;
  std::string failed, last_error;
  std::atomic<bool> said_joined{false};
  bool stopping = false;
  std::unique_ptr<Worker> worker;
  std::thread thread;
};

RemoteWorker::RemoteWorker(WorkerSpec spec, std::unique_ptr<Engine> engine, RemoteWorkerOptions options)
    : impl_(std::make_unique<Impl>(std::move(spec), std::move(engine), std::move(options))) {}
RemoteWorker::~RemoteWorker() = default;

std::string RemoteWorker::failure() const {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->failed;
}
bool RemoteWorker::joined() const { return impl_->said_joined; }
Worker& RemoteWorker::worker() { return *impl_->worker; }

}  // namespace drydock::runtime
