#include "runtime/worker_port.h"

#include <set>

#include "core/error.h"
#include "runtime/channel.h"

namespace drydock::runtime {
namespace {

constexpr int kMostWorkers = 512;

// A worker behind a connection.
class RemoteLink : public WorkerLink {
 public:
  explicit RemoteLink(Channel channel)
      : line_(std::move(channel), [] {
          return Frame{FrameKind::pulse, encode(Pulse{})};
        }) {}
  void start(const Start& start) override { line_.post(FrameKind::start, encode(start)); }
  void cancel(Attempt attempt) override { line_.post(FrameKind::cancel, encode(attempt)); }
  void release(Attempt attempt) override { line_.post(FrameKind::release, encode(attempt)); }
  void close() override { line_.close(); }
  Pulse pulse() const override {
    const std::scoped_lock lock(mutex_);
    return pulse_;
  }
  void set(const Pulse& pulse) {
    const std::scoped_lock lock(mutex_);
    pulse_ = pulse;
  }
  Frame receive() { return line_.receive(); }
  // Tells why and waits until the other side has gone: it would not read what comes with an end at once.
  void refuse(const std::string& why) {
    constexpr int kMostFrames = 20;
    line_.post(FrameKind::refusal, encode_text(why));
    try {
      for (int i = 0; i < kMostFrames; ++i) line_.receive();
    } catch (const core::Error&) {
    }
  }

 private:
  Line line_;
  mutable std::mutex mutex_;
  Pulse pulse_;
};

}  // namespace

struct WorkerPort::Impl {
  Impl(Dispatcher& d, const Address& address, std::string given, std::function<void(const std::string&)> logs)
      : dispatcher(d),
        secret(std::move(given)),
        log(std::move(logs)),
        acceptor(address, kMostWorkers, [this](Socket socket) { serve(std::move(socket)); }) {}

  ~Impl() {
    acceptor.stop();
    const std::scoped_lock lock(mutex);
    stopping = true;
    for (const auto& link : links) link->close();
  }

  void serve(Socket socket) {
    std::string name = "a connection";
    try {
      Channel channel = Channel::accepted(std::move(socket), secret);
      const Frame first = channel.receive(Channel::kHandshake);
      if (first.kind != FrameKind::hello) throw core::Error("does not say who it is");
      const Hello hello = decode_hello(first.body);
      name = hello.name.substr(0, 60);
      serve_worker(hello, std::move(channel));
    } catch (const core::Error& error) {
      if (log) log(name + ": " + error.what());
    }
  }

  void serve_worker(const Hello& hello, Channel channel) {
    const Dispatcher::Life life = dispatcher.new_life();
    const auto link = std::make_shared<RemoteLink>(std::move(channel));
    {
      const std::scoped_lock lock(mutex);
      if (stopping) return;
      links.insert(link);
    }
    try {
      try {
        dispatcher.join(life, hello, link);
      } catch (const core::Error& error) {
        link->refuse(error.what());
        throw;
      }
      if (log) log(hello.name + ": joined");
      for (;;) {
        const Frame frame = link->receive();
        if (frame.kind == FrameKind::news)
          dispatcher.news(life, decode_news(frame.body));
        else if (frame.kind == FrameKind::pulse)
          link->set(decode_pulse(frame.body));
        else
          throw core::Error("a frame that workers do not send");
      }
    } catch (const core::Error& error) {
      link->close();
      dispatcher.lost(life, error.what());
      const std::scoped_lock lock(mutex);
      links.erase(link);
      if (log) log(hello.name + ": " + error.what());
    }
  }

  Dispatcher& dispatcher;
  std::string secret;
  std::function<void(const std::string&)> log;
  std::mutex mutex;
  std::set<std::shared_ptr<RemoteLink>> links;
  bool stopping = false;
  Acceptor acceptor;  // the last: its threads use the others
};

WorkerPort::WorkerPort(Dispatcher& dispatcher, const Address& address, std::string secret,
                       std::function<void(const std::string&)> log)
    : impl_(std::make_unique<Impl>(dispatcher, address, std::move(secret), std::move(log))) {}
WorkerPort::~WorkerPort() = default;
int WorkerPort::port() const { return impl_->acceptor.port(); }

}  // namespace drydock::runtime
