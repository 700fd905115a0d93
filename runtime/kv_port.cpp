#include "runtime/kv_port.h"

#include <condition_variable>
#include <optional>
#include <set>

#include "core/error.h"
#include "runtime/channel.h"

namespace drydock::runtime {
namespace {

constexpr int kMostKvConnections = 256;
constexpr std::chrono::hours kKvSilence{24};  // a peer that needs nothing says nothing; keepalive finds dead ones
// Who is asked says every kHeartbeat that it is there; a process that hangs does not, and holds up others' KV.
constexpr std::chrono::milliseconds kKvSilenceOfPeer{1000};

// An answer that another thread gives.
struct Waited {
  std::mutex mutex;
  std::condition_variable came;
  std::optional<KvPiece> piece;
};

class RemoteKvPeer : public KvPeer {
 public:
  explicit RemoteKvPeer(Channel channel) : channel_(std::move(channel)) {}
  void ask(const KvFetch& fetch) override { channel_.send(FrameKind::kv_fetch, encode(fetch)); }
  std::optional<KvPiece> next() override {
    const Frame frame = channel_.receive(kKvSilenceOfPeer);
    if (frame.kind == FrameKind::kv_piece) return decode_kv_piece(frame.body);
    if (frame.kind != FrameKind::pulse) throw core::Error("a frame that is no piece of KV");
    return std::nullopt;
  }
  bool ended() const override { return channel_.ended(); }

 private:
  Channel channel_;
};

}  // namespace

struct KvPort::Impl {
  Impl(const Address& address, std::string given)
      : secret(std::move(given)),
        acceptor(address, kMostKvConnections, [this](Socket socket) { serve(std::move(socket)); }) {}

  ~Impl() {
    acceptor.stop();
    const std::scoped_lock lock(mutex);
    stopping = true;
    for (Channel* channel : channels) channel->shut_down();
  }

  void serve(Socket socket) {
    try {
      Channel channel = Channel::accepted(std::move(socket), secret);
      {
        const std::scoped_lock lock(mutex);
        if (stopping) return;
        channels.insert(&channel);
      }
      try {
        for (;;) {
          const Frame frame = channel.receive(kKvSilence);
          if (frame.kind != FrameKind::kv_fetch) throw core::Error("a frame that is no question for KV");
          channel.send(FrameKind::kv_piece, encode(answer(decode_kv_fetch(frame.body), channel)));
        }
      } catch (const core::Error&) {  // gone, or no peer of ours: the connection ends
      }
      const std::scoped_lock lock(mutex);
      channels.erase(&channel);
    } catch (const core::Error&) {  // a stranger
    }
  }

  KvPiece answer(const KvFetch& fetch, Channel& channel) {
    const auto waited = std::make_shared<Waited>();
    {
      const std::scoped_lock lock(worker_mutex);
      if (!worker) return {.attempt = fetch.attempt, .first_block = fetch.first_block, .blocks = fetch.blocks};
      worker->fetch(fetch, [waited](KvPiece piece) {
        const std::scoped_lock held(waited->mutex);
        waited->piece = std::move(piece);
        waited->came.notify_one();
      });
    }
    std::unique_lock lock(waited->mutex);
    while (!waited->came.wait_for(lock, kHeartbeat, [&] { return waited->piece.has_value(); })) {
      lock.unlock();
      channel.send(FrameKind::pulse, encode(Pulse{}));
      lock.lock();
    }
    return std::move(*waited->piece);
  }

  std::string secret;
  std::mutex mutex, worker_mutex;
  std::set<Channel*> channels;
  Worker* worker = nullptr;
  bool stopping = false;
  Acceptor acceptor;  // the last: its threads use the others
};

KvPort::KvPort(const Address& address, std::string secret)
    : impl_(std::make_unique<Impl>(address, std::move(secret))) {}
KvPort::~KvPort() = default;
int KvPort::port() const { return impl_->acceptor.port(); }
void KvPort::serve(Worker* worker) {
  const std::scoped_lock lock(impl_->worker_mutex);
  impl_->worker = worker;
}

std::unique_ptr<KvPeer> connect_kv(const std::string& address, const std::string& secret) {
  Socket socket = connect_to(parse_address(address, "KV port"), kKvSilenceOfPeer);
  return std::make_unique<RemoteKvPeer>(Channel::connected(std::move(socket), secret, kKvSilenceOfPeer));
}

}  // namespace drydock::runtime
