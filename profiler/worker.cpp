#include "profiler/worker.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <new>
#include <thread>

#include "core/error.h"
#include "core/file.h"
#include "profiler/system_json.h"

namespace drydock::profiler {
namespace {

constexpr double kOpenLimit = 60, kSystemLimit = 60;  // [s]: a driver may take long to start
constexpr int kPollMs = 50;

bool write_all(int fd, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

bool read_line(int fd, std::string& line) {
  line.clear();
  for (char c = 0;;) {
    const ssize_t n = ::read(fd, &c, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    if (c == '\n') return true;
    line += c;
  }
}

std::string measure_op(Device& device, const std::string& key, const StopRule& rule) {
  const core::Op op = core::parse_op_key(key);
  if (const auto reason = device.why_not(op)) return reason_message("refused", *reason);
  const std::unique_ptr<Experiment> experiment = device.prepare(op);
  return measured_message(measure(*experiment, rule));
}

std::string name_parts(Device& device, const std::string& key) {
  const core::Op op = core::parse_op_key(key);
  if (const auto reason = device.why_not(op)) return reason_message("refused", *reason);
  return parts_message(device.parts(op));
}

std::string answer(Device& device, const std::string& request, const StopRule& rule) {
  const size_t space = request.find(' ');
  const std::string what = request.substr(0, space), with = request.substr(space + 1);
  if (what == "measure") return measure_op(device, with, rule);
  if (what == "parts") return name_parts(device, with);
  core::write_file(with, to_json(device.system()));
  return reason_message("done", "");
}

// Answers until the parent goes away. A failure may have left the device unusable, so it is the last answer.
void serve(const Opener& open, const StopRule& rule, int in, int out) {
  try {
    const std::unique_ptr<Device> device = open();
    write_all(out, hello_message(device->identity()));
    for (std::string request; read_line(in, request);) write_all(out, answer(*device, request, rule));
  } catch (const std::bad_alloc&) {
    write_all(out, reason_message("failed", "out of memory"));
  } catch (const std::exception& error) {
    write_all(out, reason_message("failed", error.what()));
  }
}

}  // namespace

Worker::Worker(Opener open, StopRule rule, const std::atomic<bool>* stop)
    : open_(std::move(open)), rule_(rule), stop_(stop) {
  start();
}

Worker::~Worker() { kill(); }

void Worker::start() {
  int down[2], up[2];
  if (::pipe(down) != 0) throw core::Error(std::string("no pipe to a measuring process: ") + std::strerror(errno));
  if (::pipe(up) != 0) throw core::Error(std::string("no pipe to a measuring process: ") + std::strerror(errno));
  child_ = ::fork();
  if (child_ < 0) throw core::Error(std::string("no measuring process: ") + std::strerror(errno));
  if (child_ == 0) {
    // Ctrl-C reaches the whole group; the parent decides. A parent that is killed takes the child along.
    ::signal(SIGINT, SIG_IGN);
    ::signal(SIGPIPE, SIG_IGN);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(down[1]);
    ::close(up[0]);
    serve(open_, rule_, down[0], up[1]);
    ::_exit(0);  // the parent's buffers and exit handlers are not the child's
  }
  ::close(down[0]);
  ::close(up[1]);
  to_child_ = down[1];
  from_child_ = up[0];
  buffer_.clear();
  const auto begun = std::chrono::steady_clock::now();
  try {
    greet();
    opening_s_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  } catch (...) {
    kill();
    throw;
  }
}

void Worker::greet() {
  std::string line;
  switch (receive(kOpenLimit, line)) {
    case Answer::line: {
      const Message message = parse_message(line);
      if (message.status != "hello") throw core::Error(message.reason);
      identity_ = message.identity;
      return;
    }
    case Answer::died:
      throw core::Error("the measuring process ended while it opened the device: " + last_words());
    case Answer::late:
      throw core::Error("the device did not open in " + std::to_string(static_cast<int>(kOpenLimit)) + " s");
    case Answer::stopped:
      throw core::Error("interrupted while the device opened; nothing was measured");
  }
}

void Worker::kill() {
  for (int* fd : {&to_child_, &from_child_}) {
    if (*fd >= 0) ::close(*fd);
    *fd = -1;
  }
  if (child_ <= 0) return;
  ::kill(child_, SIGKILL);
  // One that is stuck in the driver can't be waited for.
  for (int i = 0; i < 200 && ::waitpid(child_, nullptr, WNOHANG) == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  child_ = -1;
}

bool Worker::send(const std::string& line) {
  struct sigaction ignore {
  }, before{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &before);
  const bool sent = write_all(to_child_, line + "\n");
  ::sigaction(SIGPIPE, &before, nullptr);
  return sent;
}

Worker::Answer Worker::receive(double limit_s, std::string& line) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(limit_s);
  for (;;) {
    if (const size_t at = buffer_.find('\n'); at != std::string::npos) {
      line = buffer_.substr(0, at);
      buffer_.erase(0, at + 1);
      return Answer::line;
    }
    if (stop_ != nullptr && stop_->load()) return Answer::stopped;
    if (Clock::now() > end) return Answer::late;
    pollfd ready{from_child_, POLLIN, 0};
    if (::poll(&ready, 1, kPollMs) <= 0) continue;
    char piece[4096];
    const ssize_t n = ::read(from_child_, piece, sizeof piece);
    if (n == 0) return Answer::died;
    if (n > 0) buffer_.append(piece, static_cast<size_t>(n));
  }
}

std::string Worker::last_words() {
  int status = 0;
  for (int i = 0; i < 200; ++i) {
    if (::waitpid(child_, &status, WNOHANG) == child_) {
      child_ = -1;
      if (WIFSIGNALED(status)) return std::string("killed by ") + strsignal(WTERMSIG(status));
      return "exit code " + std::to_string(WEXITSTATUS(status));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return "no exit code";
}

models::System Worker::system(const std::filesystem::path& file) {
  std::string line;
  if (!send("system " + file.string())) throw core::Error("the measuring process is gone");
  switch (receive(kSystemLimit, line)) {
    case Answer::line:
      if (const Message message = parse_message(line); message.status != "done") throw core::Error(message.reason);
      return models::read_system(file);
    case Answer::stopped:
      throw core::Error("interrupted while the machine was characterised; nothing was measured");
    default:
      throw core::Error("the machine could not be characterised: " + last_words());
  }
}

Worker::Status Worker::ask(const std::string& request, const char* wanted, double limit_s, Message& message) {
  std::string line;
  Answer answer = Answer::died;
  if (send(request)) answer = receive(limit_s, line);
  if (answer == Answer::line) {
    message = parse_message(line);
    if (message.status == wanted) return Status::measured;
    if (message.status == "refused") return Status::refused;
  } else if (answer == Answer::stopped) {
    message.reason = "interrupted";
    return Status::stopped;
  } else {
    message.reason = answer == Answer::died
                         ? "the measuring process ended: " + last_words()
                         : "no answer in " + std::to_string(static_cast<int64_t>(limit_s + 0.5)) + " s";
  }
  restart();
  return Status::failed;
}

Worker::Outcome Worker::measure(const core::Op& op, double limit_s) {
  Message message;
  const Status status = ask("measure " + core::key(op), "measured", limit_s, message);
  return {status, std::move(message.measured), std::move(message.reason)};
}

Worker::Naming Worker::parts(const core::Op& op, double limit_s) {
  Message message;
  const Status status = ask("parts " + core::key(op), "parts", limit_s, message);
  return {status, std::move(message.parts), std::move(message.reason)};
}

void Worker::restart() {
  kill();
  start();
}

}  // namespace drydock::profiler
