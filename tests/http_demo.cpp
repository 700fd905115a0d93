// The HTTP server with a service that answers by a script: what clients are tried against without a model.
// usage: drydock_http_demo [PORT [TOKENS_PER_S [THREADS]]]; prints the port and serves until its input ends.
// The answer is "Hello from Drydock: naïve café 🚢." over and over until max_tokens; of prompts with "[end]" once.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "runtime/byte_codec.h"
#include "runtime/http_server.h"
#include "tests/runtime_fake_service.h"

namespace {

using namespace drydock;

tests::Script demo_script(const runtime::Generation& generation, double tokens_per_s) {
  const std::string prompt(generation.prompt.begin(), generation.prompt.end());
  const auto has = [&](const char* word) { return prompt.find(word) != std::string::npos; };
  tests::Script out;
  if (has("[overload]")) out.admission = runtime::Admission::overloaded;
  const std::string text = "Hello from Drydock: na\xC3\xAFve caf\xC3\xA9 \xF0\x9F\x9A\xA2.";
  out.tokens = tests::byte_tokens(text);
  while (!has("[end]") && out.tokens.size() <= static_cast<size_t>(generation.most_tokens) &&
         out.tokens.size() < 100'000)
    out.tokens.insert(out.tokens.end(), out.tokens.begin(), out.tokens.begin() + static_cast<long>(text.size()));
  if (has("[fail")) {
    out.tokens.resize(3);
    out.finish = runtime::Finish::failed;
    out.reason = "the script says so";
  }
  if (has("[fail at once]")) out.tokens.clear();
  out.stuck = has("[stuck]");
  if (tokens_per_s > 0) out.first = out.each = std::chrono::microseconds(static_cast<int64_t>(1e6 / tokens_per_s));
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const double tokens_per_s = argc > 2 ? std::atof(argv[2]) : 0;
    tests::FakeService service(
        [=](const runtime::Generation& generation) { return demo_script(generation, tokens_per_s); });
    const runtime::ByteCodec codec;
    runtime::HttpOptions options;
    options.port = argc > 1 ? std::atoi(argv[1]) : 0;
    options.threads = argc > 3 ? std::atoi(argv[3]) : 2;
    options.models = {"demo"};
    if (const char* key = std::getenv("DRYDOCK_DEMO_KEY")) options.api_keys = {key};
    if (std::getenv("DRYDOCK_DEMO_QUIET")) options.log.level = runtime::LogLevel::off;
    runtime::HttpServer server(service, codec, options);
    server.start();
    std::printf("%d\n", server.port());
    std::fflush(stdout);
    while (std::getchar() != EOF) {
    }
    server.drain(5);
    return 0;
  } catch (const core::Error& error) {
    std::fprintf(stderr, "drydock_http_demo: %s\n", error.what());
    return 2;
  }
}
