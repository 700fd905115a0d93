// Clients whose machine is gone: no end and no reset ever comes. In a network of its own, which is then switched off.
#include <doctest/doctest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "core/file.h"
#include "tests/runtime_http_bed.h"

using namespace drydock;
using namespace drydock::tests;
using namespace std::chrono_literals;

namespace {

enum HalfOpenEnd { kGone, kNoNetwork, kNotOpen, kStillOpen, kNotCancelled };

bool switch_loopback(bool on) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  bool done = ::ioctl(fd, SIOCGIFFLAGS, &request) == 0;
  request.ifr_flags = static_cast<short>(on ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
  done = done && ::ioctl(fd, SIOCSIFFLAGS, &request) == 0;
  ::close(fd);
  return done;
}

// In a child process: a network can't be left again.
HalfOpenEnd vanish() {
  const bool own = ::unshare(CLONE_NEWNET) == 0 || ::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
  if (!own || !switch_loopback(true)) return kNoNetwork;
  runtime::HttpOptions options = quiet_options();
  options.limits.vanished_s = 1;
  HttpBed bed(
      [](const runtime::Generation& generation) {
        // One tells on and on, the other thinks.
        Script script = saying(std::string(generation.most_tokens > 100 ? 4000 : 0, 'a'), 5ms);
        script.stuck = true;
        return script;
      },
      options);
  RawClient streams(bed.server.port()), waits(bed.server.port()), idle(bed.server.port());
  streams.send(post("/v1/completions", R"({"prompt": "hi", "max_tokens": 4000, "stream": true})"));
  waits.send(post("/v1/completions", R"({"prompt": "hi", "max_tokens": 50})"));
  idle.send(get("/version"));
  if (streams.read_until("data: ").empty() || !idle.read()) return kNotOpen;
  for (int i = 0; i < 2000 && bed.service.open() < 2; ++i) std::this_thread::sleep_for(1ms);
  if (bed.service.open() != 2 || bed.server.open_connections() != 3) return kNotOpen;
  if (!switch_loopback(false)) return kNoNetwork;
  // 1 s until the silent ones are asked, 1 s without an answer, and the kernel's timers.
  if (!bed.settles()) return kStillOpen;
  return bed.service.cancelled() == 2 ? kGone : kNotCancelled;
}

}  // namespace

TEST_CASE("clients that vanished without a word are cut, and what they asked for is cancelled") {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(vanish());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNoNetwork) {
    MESSAGE("SKIPPED: this process may not make a network of its own; half-open clients were not tried");
    return;
  }
  CHECK(WEXITSTATUS(status) == kGone);
}

TEST_CASE("what handles requests has no way to the file system") {
  const std::vector<std::string> ways = {"core/file.h", "<filesystem>",  "<fstream>",   "<fcntl.h>", "fopen",
                                         "open(\"",     "mapped_file.h", "std::system", "popen",     "execv"};
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(DRYDOCK_SOURCE_DIR) + "/runtime")) {
    const std::string name = entry.path().filename();
    const auto begins = [&](const char* word) { return name.starts_with(word); };
    const bool handles = begins("http_") || begins("answer") || begins("completion_") || begins("request_fields") ||
                         begins("api_error") || begins("dispatcher") || begins("stream_chunk") || begins("trace_");
    if (!handles) continue;
    ++files;
    const std::string text = core::read_file(entry.path(), 1 << 20);
    for (const std::string& way : ways) {
      CAPTURE(name + " has " + way);
      CHECK(text.find(way) == std::string::npos);
    }
  }
  CHECK(files >= 20);
}
