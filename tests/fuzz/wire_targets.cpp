// What comes over the runtime's own connections, and what it is started with.
#include "runtime/serve_config.h"
#include "runtime/wire.h"
#include "tests/fuzz/refusable.h"
#include "tests/fuzz/targets.h"

namespace drydock::fuzz {
namespace {

// What is read is written the same, or nearly: floating-point payloads keep their bits.
template <typename Decode>
void same_again(std::span<const std::byte> body, const Decode& decode) {
  refusable([&] {
    const auto written = runtime::encode(decode(body));
    expect(std::equal(written.begin(), written.end(), body.begin(), body.end()), "a message is written as it was read");
  });
}

}  // namespace

// The first byte chooses the message.
void wire(std::string_view input) {
  using namespace runtime;
  const auto bytes = std::as_bytes(std::span(input.data(), input.size()));
  refusable([&] {
    const FrameHeader header = parse_header(bytes.first(std::min(bytes.size(), kFrameHeaderBytes)), kMostFrameBytes);
    check_body(header, bytes.subspan(kFrameHeaderBytes));
  });
  if (input.empty()) return;
  const auto body = bytes.subspan(1);
  switch (static_cast<unsigned char>(input[0]) % 8) {
    case 0:
      return same_again(body, decode_hello);
    case 1:
      return same_again(body, decode_start);
    case 2:
      return same_again(body, decode_attempt);
    case 3:
      return same_again(body, decode_news);
    case 4:
      return same_again(body, decode_pulse);
    case 5:
      return same_again(body, decode_kv_fetch);
    case 6:
      return same_again(body, decode_kv_piece);
    default:
      return refusable([&] { decode_text(body); });
  }
}

void serve_config(std::string_view input) {
  refusable([&] {
    const runtime::ServeConfig config = runtime::parse_serve_config(input, "runtime.json");
    expect(config.plan.pools.size() == (config.plan.mode == models::Mode::agg ? 1 : 2), "a mode has its pools");
    for (const models::Pool& pool : config.plan.pools) {
      expect(pool.replicas >= 1 && pool.replicas <= 1 << 16, "pools have workers");
      expect(pool.parallelism.gpus() >= 1 && pool.gpus() >= pool.replicas && pool.gpus() <= 1 << 16, "of some GPUs");
      expect(pool.max_batch >= 1 && pool.max_tokens >= 1 && pool.kv_blocks >= 0, "limits are limits");
    }
    expect(config.engine == "emulated" || config.engine == "cpu" || config.engine == "cuda", "the engine is known");
    expect(!config.secret_env.empty() && config.secret_env.size() <= 64, "a variable's name is bounded");
    for (const unsigned char c : config.secret_env)
      expect((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_',
             "and of letters, digits and underscores");
  });
}

}  // namespace drydock::fuzz
