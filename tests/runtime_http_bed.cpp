#include "tests/runtime_http_bed.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace drydock::tests {

runtime::HttpOptions quiet_options() {
  runtime::HttpOptions out;
  out.port = 0;
  out.models = {"demo"};
  out.log.level = runtime::LogLevel::off;
  return out;
}

Script saying(std::string_view text, std::chrono::microseconds each) {
  Script out;
  out.tokens = byte_tokens(text);
  out.each = each;
  return out;
}

HttpBed::HttpBed(std::function<Script(const runtime::Generation&)> plan, runtime::HttpOptions options)
    : service(std::move(plan)), server(service, codec, std::move(options)) {
  server.start();
}

Response HttpBed::ask(std::string_view request) {
  RawClient client(server.port());
  client.send(request);
  const auto response = client.read();
  if (!response) throw std::runtime_error("no response");
  return *response;
}

bool HttpBed::settles() {
  for (int i = 0; i < 1000; ++i) {
    if (server.open_connections() == 0 && server.open_answers() == 0 && service.open() == 0) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

int open_descriptors() {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) count += entry.path().empty() ? 0 : 1;
  return count;
}

bool descriptors_return_to(int count) {
  for (int i = 0; i < 1000 && open_descriptors() > count; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return open_descriptors() <= count;
}

int64_t resident_bytes() {
  int64_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace drydock::tests
