#include "runtime/channel.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "core/error.h"

namespace drydock::runtime {
namespace {

constexpr size_t kNonceBytes = 32, kProofBytes = 32, kMostHandshakeBytes = 256, kLeastSecret = 16;
constexpr size_t kReadBytes = 256 << 10;
constexpr std::chrono::seconds kSendLimit{10}, kFrameLimit{30};

using Nonce = std::array<std::byte, kNonceBytes>;
using Proof = std::array<std::byte, kProofBytes>;

Nonce fresh_nonce() {
  Nonce out;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(out.data()), kNonceBytes) != 1)
    throw core::Error("libcrypto has no random numbers");
  return out;
}

// Each side has a label of its own, so that a proof can't be sent back to its maker.
Proof proof_of(const std::string& secret, std::string_view label, const Nonce& first, const Nonce& second) {
  Bytes text(std::as_bytes(std::span(label)).begin(), std::as_bytes(std::span(label)).end());
  text.insert(text.end(), first.begin(), first.end());
  text.insert(text.end(), second.begin(), second.end());
  Proof out;
  unsigned int size = 0;
  const auto* made = HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
                          reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                          reinterpret_cast<unsigned char*>(out.data()), &size);
  if (!made || size != kProofBytes) throw core::Error("libcrypto's HMAC failed");
  return out;
}

constexpr std::string_view kCallerLabel = "drydock wire 1, who connects", kCalledLabel = "drydock wire 1, who accepts";

}  // namespace

std::string secret_of(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (!value || std::strlen(value) < kLeastSecret)
    throw core::Error("environment variable " + name + ": want the workers' shared secret, at least " +
                      std::to_string(kLeastSecret) + " characters");
  return value;
}

Frame Channel::receive_handshake(Clock::time_point deadline) {
  std::array<std::byte, kFrameHeaderBytes> head;
  socket_.read(head, deadline);
  const FrameHeader header = parse_header(head, kMostHandshakeBytes);
  Frame out{header.kind, Bytes(header.length)};
  socket_.read(out.body, deadline);
  check_body(header, out.body);
  return out;
}

Bytes Channel::expect(FrameKind kind, size_t bytes, Clock::time_point deadline) {
  Frame got = receive_handshake(deadline);
  if (got.kind == FrameKind::refusal) throw core::Error("refused: " + decode_text(got.body));
  if (got.kind != kind || got.body.size() != bytes) throw core::Error("a handshake that is none");
  return std::move(got.body);
}

Channel Channel::accepted(Socket socket, const std::string& secret) {
  Channel out(std::move(socket));
  const Clock::time_point deadline = Clock::now() + kHandshake;
  const Nonce mine = fresh_nonce();
  out.socket_.write(frame(FrameKind::challenge, mine), deadline);
  const Bytes answer = out.expect(FrameKind::answer, kNonceBytes + kProofBytes, deadline);
  Nonce theirs;
  std::memcpy(theirs.data(), answer.data(), kNonceBytes);
  const Proof want = proof_of(secret, kCallerLabel, mine, theirs);
  if (CRYPTO_memcmp(want.data(), answer.data() + kNonceBytes, kProofBytes) != 0) {
    out.socket_.write(frame(FrameKind::refusal, encode_text("the shared secret is another")), deadline);
    throw core::Error("a connection with another secret");
  }
  out.socket_.write(frame(FrameKind::welcome, proof_of(secret, kCalledLabel, theirs, mine)), deadline);
  return out;
}

Channel Channel::connected(Socket socket, const std::string& secret, std::chrono::milliseconds limit) {
  Channel out(std::move(socket));
  const Clock::time_point deadline = Clock::now() + limit;
  Nonce theirs;
  const Bytes challenge = out.expect(FrameKind::challenge, kNonceBytes, deadline);
  std::memcpy(theirs.data(), challenge.data(), kNonceBytes);
  const Nonce mine = fresh_nonce();
  Bytes answer(mine.begin(), mine.end());
  const Proof proof = proof_of(secret, kCallerLabel, theirs, mine);
  answer.insert(answer.end(), proof.begin(), proof.end());
  out.socket_.write(frame(FrameKind::answer, answer), deadline);
  const Bytes welcome = out.expect(FrameKind::welcome, kProofBytes, deadline);
  const Proof want = proof_of(secret, kCalledLabel, mine, theirs);
  if (CRYPTO_memcmp(want.data(), welcome.data(), kProofBytes) != 0)
    throw core::Error("who was connected to does not know the shared secret");
  return out;
}

void Channel::send(FrameKind kind, std::span<const std::byte> body) {
  socket_.write(frame(kind, body), Clock::now() + kSendLimit);
}

// Silence in the middle of a frame is silence too; a long one that keeps coming is none.
Frame Channel::receive(std::chrono::milliseconds limit) {
  std::array<std::byte, kFrameHeaderBytes> head;
  socket_.read(head, Clock::now() + limit);
  const FrameHeader header = parse_header(head, kMostFrameBytes);
  Frame out{header.kind, Bytes(header.length)};
  const Clock::time_point end = Clock::now() + kFrameLimit;
  for (size_t at = 0; at < out.body.size(); at += kReadBytes) {
    const size_t count = std::min(kReadBytes, out.body.size() - at);
    socket_.read(std::span(out.body).subspan(at, count), std::min(end, Clock::now() + limit));
  }
  check_body(header, out.body);
  return out;
}

Line::Line(Channel channel, std::function<Frame()> pulse)
    : channel_(std::move(channel)), pulse_(std::move(pulse)), thread_([this] { run(); }) {}

Line::~Line() {
  close();
  thread_.join();
}

void Line::post(FrameKind kind, Bytes body) {
  {
    const std::scoped_lock lock(mutex_);
    if (closed_) return;
    waiting_bytes_ += body.size();
    waiting_.push_back({kind, std::move(body)});
    closed_ = waiting_bytes_ > kMostWaitingBytes;
    if (closed_) channel_.shut_down();
  }
  wake_.notify_one();
}

void Line::close() {
  {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
    channel_.shut_down();
  }
  wake_.notify_one();
}

void Line::run() {
  std::unique_lock lock(mutex_);
  for (Clock::time_point next_pulse = Clock::now();;) {
    wake_.wait_until(lock, next_pulse, [this] { return closed_ || !waiting_.empty(); });
    if (closed_) return;
    const bool due = Clock::now() >= next_pulse;
    if (!due && waiting_.empty()) continue;
    Frame next;
    if (due) {
      next_pulse = Clock::now() + kHeartbeat;
    } else {
      next = std::move(waiting_.front());
      waiting_bytes_ -= next.body.size();
      waiting_.pop_front();
    }
    lock.unlock();
    try {
      if (due) next = pulse_();
      channel_.send(next.kind, next.body);
    } catch (const core::Error&) {
      close();
      return;
    }
    lock.lock();
  }
}

}  // namespace drydock::runtime
