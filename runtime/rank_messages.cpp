#include "runtime/rank_messages.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "core/error.h"
#include "runtime/wire_bytes.h"

namespace drydock::runtime {
namespace {

constexpr uint32_t kRankMagic = 0x4B4E5244;  // "DRNK"
constexpr size_t kRankHeaderBytes = 16, kRankSequenceBytes = 3 * 8 + 2 * 4 + 28;
constexpr int64_t kMostRankCount = int64_t{1} << 40;

struct RankHeader {
  uint32_t magic = kRankMagic, kind = 0;
  uint64_t bytes = 0;
};
static_assert(sizeof(RankHeader) == kRankHeaderBytes);

void put_sequence(WireWriter& w, const SequenceWork& s) {
  const Sampling greedy{.temperature = 0};
  const Sampling& p = s.sampling != nullptr ? *s.sampling : greedy;
  w.number(s.context), w.number(s.outputs), w.number(s.answered);
  w.number(static_cast<uint32_t>(s.tokens.size())), w.number(static_cast<uint32_t>(s.blocks.size()));
  w.number(p.temperature), w.number(p.top_p), w.number(p.top_k), w.number(p.seed), w.number(p.logprobs);
  w.number(uint32_t{0});
}

struct SpanLengths {
  size_t tokens = 0, blocks = 0;
};

// All but the spans, which come after all sequences.
SpanLengths take_sequence(WireReader& r, SequenceWork& s, Sampling& p) {
  s.context = r.whole(0, kMostRankCount), s.outputs = r.whole(0, kMostRankCount),
  s.answered = r.whole(0, kMostRankCount);
  SpanLengths lengths;
  lengths.tokens = r.number<uint32_t>(), lengths.blocks = r.number<uint32_t>();
  p.temperature = r.number<float>(), p.top_p = r.number<float>(), p.top_k = r.number<int32_t>();
  p.seed = r.number<uint64_t>(), p.logprobs = r.number<int32_t>();
  r.number<uint32_t>();
  s.sampling = &p;
  return lengths;
}

template <typename T>
void take_flat(WireReader& r, size_t count, std::vector<T>& out) {
  if (count > RankLink::kMostBytes / sizeof(T)) malformed("more elements than bytes");
  const auto bytes = r.bytes(count * sizeof(T));
  out.resize(count);
  if (count > 0) std::memcpy(out.data(), bytes.data(), bytes.size());
}

}  // namespace

Bytes encode(const RankSetup& s) {
  WireWriter w;
  w.number(static_cast<uint8_t>(s.cuda)), w.text(s.model_dir), w.number(s.dtype);
  w.number(s.kv_blocks), w.number(s.block_tokens);
  for (const int value : {s.threads, s.device, s.rank, s.ranks}) w.number(int64_t{value});
  w.number(static_cast<uint8_t>(s.random_weights.has_value())), w.number(s.random_weights.value_or(0));
  return std::move(w.out);
}

RankSetup decode_rank_setup(std::span<const std::byte> body) {
  WireReader r(body);
  RankSetup s;
  s.cuda = r.flag(), s.model_dir = r.text(), s.dtype = r.choice<core::Dtype>(core::kDtypes - 1);
  s.kv_blocks = r.whole(1, INT32_MAX), s.block_tokens = r.whole(1, 1 << 20);
  for (int* value : {&s.threads, &s.device, &s.rank, &s.ranks}) *value = static_cast<int>(r.whole(0, 1 << 16));
  const bool made_up = r.flag();
  const auto seed = r.number<uint64_t>();
  if (made_up) s.random_weights = seed;
  r.end();
  if (s.rank >= s.ranks) malformed("a rank that is none");
  return s;
}

void encode(const RankWork& work, Bytes& out) {
  WireWriter w;
  w.out = std::move(out);
  w.out.clear();
  w.number(static_cast<uint32_t>(work.prompts.size())), w.number(static_cast<uint32_t>(work.decodes.size()));
  for (const auto* group : {&work.prompts, &work.decodes})
    for (const SequenceWork& s : *group) put_sequence(w, s);
  for (const auto* group : {&work.prompts, &work.decodes})
    for (const SequenceWork& s : *group) w.bytes(std::as_bytes(s.tokens));
  for (const auto* group : {&work.prompts, &work.decodes})
    for (const SequenceWork& s : *group) w.bytes(std::as_bytes(s.blocks));
  out = std::move(w.out);
}

void decode_rank_work(std::span<const std::byte> body, ReceivedWork& out) {
  WireReader r(body);
  const auto prompts = r.number<uint32_t>(), decodes = r.number<uint32_t>();
  const size_t count = size_t{prompts} + decodes;
  if (count > body.size() / kRankSequenceBytes) malformed("more elements than bytes");
  out.samplings.resize(count);
  out.work.prompts.resize(prompts), out.work.decodes.resize(decodes);
  const auto sequence = [&](size_t i) -> SequenceWork& {
    return i < prompts ? out.work.prompts[i] : out.work.decodes[i - prompts];
  };
  std::vector<SpanLengths> lengths;
  SpanLengths all;
  for (size_t i = 0; i < count; ++i) {
    lengths.push_back(take_sequence(r, sequence(i), out.samplings[i]));
    all.tokens += lengths.back().tokens, all.blocks += lengths.back().blocks;
  }
  take_flat(r, all.tokens, out.tokens), take_flat(r, all.blocks, out.blocks);
  r.end();
  all = {};
  for (size_t i = 0; i < count; ++i) {
    sequence(i).tokens = std::span(out.tokens).subspan(all.tokens, lengths[i].tokens);
    sequence(i).blocks = std::span(out.blocks).subspan(all.blocks, lengths[i].blocks);
    all.tokens += lengths[i].tokens, all.blocks += lengths[i].blocks;
  }
}

Bytes encode_blocks(std::span<const int32_t> blocks, std::span<const std::byte> bytes) {
  WireWriter w;
  w.out.reserve(4 + blocks.size_bytes() + bytes.size());
  w.number(static_cast<uint32_t>(blocks.size())), w.bytes(std::as_bytes(blocks)), w.bytes(bytes);
  return std::move(w.out);
}

BlockBytes decode_blocks(std::span<const std::byte> body) {
  WireReader r(body);
  BlockBytes out;
  out.blocks = r.list<int32_t>(kAnyCount);
  out.bytes = body.subspan(4 + out.blocks.size() * sizeof(int32_t));
  return out;
}

void RankLink::send(RankMessage kind, std::span<const std::byte> body) {
  if (body.size() > kMostBytes)
    throw core::Error(fmt::format("tensor parallelism: a step of {} MB is more than the {} that ranks can be told",
                                  body.size() >> 20U, kMostBytes >> 20U));
  const RankHeader header{.kind = static_cast<uint32_t>(kind), .bytes = body.size()};
  const auto deadline = Clock::now() + kPatience;
  const auto head = std::as_bytes(std::span(&header, 1));
  constexpr size_t kAtOnce = 64 << 10;  // so that who waits for it wakes up once
  if (body.size() > kAtOnce) {
    socket_.write(head, deadline);
    return socket_.write(body, deadline);
  }
  Bytes all(head.begin(), head.end());
  all.insert(all.end(), body.begin(), body.end());
  socket_.write(all, deadline);
}

RankLink::Message RankLink::receive(Clock::time_point deadline) {
  RankHeader header;
  socket_.read(std::as_writable_bytes(std::span(&header, 1)), deadline);
  const bool known = header.kind >= static_cast<uint32_t>(RankMessage::setup) &&
                     header.kind <= static_cast<uint32_t>(RankMessage::failed);
  if (header.magic != kRankMagic || !known || header.bytes > kMostBytes) malformed("it is not of a rank");
  Message out{static_cast<RankMessage>(header.kind), Bytes(header.bytes)};
  socket_.read(out.body, std::max(deadline, Clock::now() + kPatience));
  if (out.kind == RankMessage::failed) words_ = decode_text(out.body);
  return out;
}

Bytes RankLink::expect(RankMessage kind, Clock::time_point deadline) {
  Message got = receive(deadline);
  if (got.kind == RankMessage::failed) throw core::Error(words_);
  if (got.kind != kind) malformed("another was to come");
  return std::move(got.body);
}

std::string RankLink::last_words() {
  constexpr std::chrono::milliseconds kAtOnce{50};
  try {
    while (words_.empty() && socket_.open()) receive(Clock::now() + kAtOnce);
  } catch (const core::Error&) {
    // It has ended, or has nothing to say.
  }
  return words_;
}

HangupWatch::HangupWatch(std::vector<int> fds, std::function<void(size_t)> gone) : stop_(::eventfd(0, EFD_CLOEXEC)) {
  if (!stop_.open()) throw core::Error("tensor parallelism: no descriptor is left");
  thread_ = std::thread([this, fds = std::move(fds), gone = std::move(gone)] { run(fds, gone); });
}

HangupWatch::~HangupWatch() {
  const uint64_t one = 1;
  while (::write(stop_.fd(), &one, sizeof one) < 0 && errno == EINTR) continue;
  thread_.join();
}

void HangupWatch::run(std::vector<int> fds, const std::function<void(size_t)>& gone) const {
  std::vector<pollfd> watched{{stop_.fd(), POLLIN, 0}};
  for (const int fd : fds) watched.push_back({fd, POLLRDHUP, 0});
  for (;;) {
    if (::poll(watched.data(), watched.size(), -1) < 0) continue;  // EINTR
    if (watched[0].revents != 0) return;
    for (size_t i = 0; i < fds.size(); ++i) {
      if (watched[i + 1].revents == 0) continue;
      watched[i + 1].fd = -1;  // passed over from now on
      gone(i);
    }
  }
}

}  // namespace drydock::runtime
