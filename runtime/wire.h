#pragma once
// Messages as bytes: frames with a bounded length and a checksum, and what is in them. Little-endian. Decoders take
// bytes from strangers: every one throws core::Error on what is too short, too long or out of range, and allocates no
// more than the bytes it was given could fill.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/messages.h"

namespace drydock::runtime {

using Bytes = std::vector<std::byte>;

enum class FrameKind : uint16_t {
  challenge = 1,  // to whoever connects: 32 random bytes
  answer,         // 32 random bytes and a proof of knowing the secret
  welcome,        // the other side's proof
  refusal,        // text; nothing follows
  hello,
  start,
  cancel,
  release,
  news,
  pulse,
  kv_fetch,
  kv_piece,
};
inline constexpr uint16_t kLastFrameKind = static_cast<uint16_t>(FrameKind::kv_piece);

// "DRYD", version, kind, length of the body, 0, XXH3 (64 bits) of the body seeded with kind and length.
inline constexpr size_t kFrameHeaderBytes = 24;
inline constexpr size_t kMostFrameBytes = 32u << 20;
inline constexpr uint16_t kWireVersion = 2;

struct FrameHeader {
  FrameKind kind{};
  uint32_t length = 0;
  uint64_t checksum = 0;
};

// Header and body together.
Bytes frame(FrameKind kind, std::span<const std::byte> body);
FrameHeader parse_header(std::span<const std::byte> bytes, size_t most_bytes);  // kFrameHeaderBytes of them
void check_body(const FrameHeader& header, std::span<const std::byte> body);

Bytes encode(const Hello& hello);
Bytes encode(const Start& start);
Bytes encode(Attempt attempt);
Bytes encode(const std::vector<News>& news);
Bytes encode(const Pulse& pulse);
Bytes encode(const KvFetch& fetch);
Bytes encode(const KvPiece& piece);
Bytes encode_text(std::string_view text);

Hello decode_hello(std::span<const std::byte> body);
Start decode_start(std::span<const std::byte> body);
Attempt decode_attempt(std::span<const std::byte> body);
std::vector<News> decode_news(std::span<const std::byte> body);
Pulse decode_pulse(std::span<const std::byte> body);
KvFetch decode_kv_fetch(std::span<const std::byte> body);
KvPiece decode_kv_piece(std::span<const std::byte> body);
std::string decode_text(std::span<const std::byte> body);

}  // namespace drydock::runtime
