#pragma once
// A server over a scripted service, on a free port.
#include <functional>
#include <string>

#include "core/json.h"
#include "runtime/byte_codec.h"
#include "runtime/http_server.h"
#include "tests/http_client.h"
#include "tests/runtime_fake_service.h"

namespace drydock::tests {

runtime::HttpOptions quiet_options();
// Tells `text` a byte at a time.
Script saying(std::string_view text, std::chrono::microseconds each = std::chrono::microseconds(0));

struct HttpBed {
  explicit HttpBed(std::function<Script(const runtime::Generation&)> plan,
                   runtime::HttpOptions options = quiet_options());
  Response ask(std::string_view request);  // on a connection of its own
  bool settles();                          // within 5 s nothing is open: no connection, answer or generation

  FakeService service;
  runtime::ByteCodec codec;
  runtime::HttpServer server;
};

int open_descriptors();
// Within 5 s: connections that the kernel has and the server has not accepted yet come and go.
bool descriptors_return_to(int count);
int64_t resident_bytes();

}  // namespace drydock::tests
