#include "runtime/wire.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cmath>

#include "core/error.h"
#include "runtime/wire_bytes.h"

namespace drydock::runtime {
namespace {

constexpr uint32_t kWireMagic = 0x44595244;  // "DRYD"
constexpr size_t kMostStops = 4096, kMostTop = 64;
constexpr int64_t kMostCount = int64_t{1} << 50;
constexpr double kMostWait_us = 1e12;  // 11 days: a moment so far from now is still a number of nanoseconds

uint64_t wire_checksum(uint16_t kind, std::span<const std::byte> body) {
  return XXH3_64bits_withSeed(body.data(), body.size(), (static_cast<uint64_t>(kind) << 32) | body.size());
}

void put(WireWriter& w, const Sampling& s) {
  w.number(s.temperature), w.number(s.top_p), w.number(s.top_k), w.number(s.seed), w.number(s.logprobs);
}

Sampling take_sampling(WireReader& r) {
  Sampling s;
  s.temperature = r.number<float>(), s.top_p = r.number<float>(), s.top_k = r.number<int32_t>();
  s.seed = r.number<uint64_t>(), s.logprobs = r.number<int32_t>();
  const bool sound = s.temperature >= 0 && s.temperature <= 100 && s.top_p > 0 && s.top_p <= 1 && s.top_k >= 0;
  if (!sound || s.logprobs < -1 || s.logprobs > static_cast<int32_t>(kMostTop)) malformed("sampling out of range");
  return s;
}

void put(WireWriter& w, const GeneratedToken& t) {
  w.number(t.token), w.number(t.logprob), w.number(static_cast<uint32_t>(t.top.size()));
  for (const TokenLogprob& other : t.top) w.number(other.token), w.number(other.logprob);
}

GeneratedToken take_token(WireReader& r) {
  GeneratedToken t;
  t.token = r.number<Token>(), t.logprob = r.number<float>();
  t.top.resize(r.count(8, kMostTop));
  for (TokenLogprob& other : t.top) other.token = r.number<Token>(), other.logprob = r.number<float>();
  return t;
}

// Pulse's fields in their order.
template <typename P, typename Whole, typename Real>
void each_count(P& p, const Whole& whole, const Real& real) {
  for (auto* field : {&p.waiting, &p.running, &p.kv_blocks_used, &p.preemptions, &p.prompt_tokens,
                      &p.cached_prompt_tokens, &p.generated_tokens, &p.steps, &p.drafts, &p.draft_tokens,
                      &p.accepted_tokens, &p.kv_transfers, &p.kv_transfers_failed, &p.kv_transferred_bytes})
    whole(*field);
  for (auto* field : {&p.step_seconds, &p.kv_transfer_seconds, &p.step_age_seconds}) real(*field);
}

}  // namespace

Bytes frame(FrameKind kind, std::span<const std::byte> body) {
  WireWriter w;
  w.out.reserve(kFrameHeaderBytes + body.size());
  w.number(kWireMagic), w.number(kWireVersion), w.number(static_cast<uint16_t>(kind));
  w.number(static_cast<uint32_t>(body.size())), w.number(uint32_t{0});
  w.number(wire_checksum(static_cast<uint16_t>(kind), body));
  w.bytes(body);
  return std::move(w.out);
}

FrameHeader parse_header(std::span<const std::byte> bytes, size_t most_bytes) {
  WireReader r(bytes);
  if (r.number<uint32_t>() != kWireMagic) malformed("not a drydock frame");
  if (const auto version = r.number<uint16_t>(); version != kWireVersion)
    throw core::Error("the other side speaks version " + std::to_string(version) + " of the wire, this one " +
                      std::to_string(kWireVersion));
  FrameHeader h;
  const auto kind = r.number<uint16_t>();
  if (kind < 1 || kind > kLastFrameKind) malformed("an unknown kind");
  h.kind = static_cast<FrameKind>(kind);
  h.length = r.number<uint32_t>();
  if (h.length > most_bytes) malformed("too long");
  if (r.number<uint32_t>() != 0) malformed("a header that is not of this version");
  h.checksum = r.number<uint64_t>();
  r.end();
  return h;
}

void check_body(const FrameHeader& h, std::span<const std::byte> body) {
  if (body.size() != h.length || wire_checksum(static_cast<uint16_t>(h.kind), body) != h.checksum)
    malformed("the checksum is wrong");
}

Bytes encode(const Hello& h) {
  WireWriter w;
  w.text(h.name), w.text(h.kv_address);
  w.number(h.kv_blocks), w.number(h.block_tokens), w.number(h.ranks);
  return std::move(w.out);
}

Hello decode_hello(std::span<const std::byte> body) {
  WireReader r(body);
  Hello h;
  h.name = r.text(), h.kv_address = r.text();
  h.kv_blocks = r.whole(1, kMostCount), h.block_tokens = r.whole(1, 1 << 20), h.ranks = r.whole(1, 1 << 16);
  r.end();
  return h;
}

Bytes encode(const Start& s) {
  WireWriter w;
  w.number(s.attempt), w.number(s.stage), w.list(s.tokens), w.number(s.answered), w.number(s.most_tokens);
  put(w, s.sampling);
  w.list(s.stop_tokens);
  w.text(s.source.address), w.number(s.source.attempt), w.number(s.source.tokens);
  w.text(s.trace), w.text(s.name);
  return std::move(w.out);
}

Start decode_start(std::span<const std::byte> body) {
  WireReader r(body);
  Start s;
  s.attempt = r.number<Attempt>(), s.stage = r.choice<Stage>(2), s.tokens = r.list<Token>(kAnyCount);
  const auto tokens = static_cast<int64_t>(s.tokens.size());
  if (tokens < 1) malformed("a prompt without tokens");
  s.answered = r.whole(0, tokens), s.most_tokens = r.whole(1, kMostCount);
  s.sampling = take_sampling(r);
  s.stop_tokens = r.list<Token>(kMostStops);
  s.source.address = r.text(), s.source.attempt = r.number<Attempt>(), s.source.tokens = r.whole(0, tokens);
  if (s.stage == Stage::decode && (s.answered < 1 || tokens < 2)) malformed("a decode stage without a first token");
  s.trace = r.text(), s.name = r.text();
  r.end();
  return s;
}

Bytes encode(Attempt attempt) {
  WireWriter w;
  w.number(attempt);
  return std::move(w.out);
}

Attempt decode_attempt(std::span<const std::byte> body) {
  WireReader r(body);
  const auto attempt = r.number<Attempt>();
  r.end();
  return attempt;
}

Bytes encode(const std::vector<News>& news) {
  WireWriter w;
  w.number(static_cast<uint32_t>(news.size()));
  for (const News& n : news) {
    w.number(n.attempt), w.number(n.kind), w.number(n.finish);
    w.number(n.delay_us), w.number(n.cached_tokens), w.text(n.reason);
    w.number(static_cast<uint32_t>(n.tokens.size()));
    for (const GeneratedToken& t : n.tokens) put(w, t);
  }
  return std::move(w.out);
}

std::vector<News> decode_news(std::span<const std::byte> body) {
  constexpr size_t kLeastNews = 8 + 1 + 1 + 8 + 8 + 4 + 4, kLeastToken = 12;
  WireReader r(body);
  // Elements are made as they come: their size in memory is larger than on the wire.
  const size_t count = r.count(kLeastNews, kAnyCount);
  std::vector<News> out;
  for (size_t i = 0; i < count; ++i) {
    News& n = out.emplace_back();
    n.attempt = r.number<Attempt>();
    n.kind = r.choice<NewsKind>(static_cast<uint8_t>(NewsKind::refused));
    n.finish = r.choice<Finish>(static_cast<uint8_t>(Finish::failed));
    n.delay_us = r.real(kMostWait_us), n.cached_tokens = r.whole(0, kMostCount), n.reason = r.text();
    const size_t tokens = r.count(kLeastToken, kAnyCount);
    for (size_t t = 0; t < tokens; ++t) n.tokens.push_back(take_token(r));
  }
  r.end();
  return out;
}

Bytes encode(const Pulse& pulse) {
  WireWriter w;
  each_count(
      pulse, [&](int64_t v) { w.number(v); }, [&](double v) { w.number(v); });
  return std::move(w.out);
}

Pulse decode_pulse(std::span<const std::byte> body) {
  WireReader r(body);
  Pulse p;
  each_count(
      p, [&](int64_t& v) { v = r.whole(0, INT64_MAX / 2); }, [&](double& v) { v = r.real(); });
  r.end();
  return p;
}

Bytes encode(const KvFetch& f) {
  WireWriter w;
  w.number(f.attempt), w.number(f.first_block), w.number(f.blocks), w.number(f.link_free_us);
  return std::move(w.out);
}

KvFetch decode_kv_fetch(std::span<const std::byte> body) {
  WireReader r(body);
  KvFetch f;
  f.attempt = r.number<Attempt>(), f.first_block = r.whole(0, kMostCount), f.blocks = r.whole(1, kMostCount);
  f.link_free_us = r.real(kMostWait_us);
  r.end();
  return f;
}

Bytes encode(const KvPiece& p) {
  WireWriter w;
  w.out.reserve(p.bytes.size() + 64);
  w.number(p.attempt), w.number(static_cast<uint8_t>(p.held)), w.number(p.first_block), w.number(p.blocks);
  w.number(p.wait_us), w.number(p.link_us), w.list(p.bytes);
  return std::move(w.out);
}

KvPiece decode_kv_piece(std::span<const std::byte> body) {
  WireReader r(body);
  KvPiece p;
  p.attempt = r.number<Attempt>(), p.held = r.flag();
  p.first_block = r.whole(0, kMostCount), p.blocks = r.whole(1, kMostCount);
  p.wait_us = r.real(kMostWait_us), p.link_us = r.real(kMostWait_us), p.bytes = r.list<std::byte>(kAnyCount);
  r.end();
  return p;
}

Bytes encode_text(std::string_view text) {
  WireWriter w;
  w.text(text);
  return std::move(w.out);
}

std::string decode_text(std::span<const std::byte> body) {
  WireReader r(body);
  std::string out = r.text();
  r.end();
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  return out;
}

}  // namespace drydock::runtime
