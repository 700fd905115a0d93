#include "runtime/supervisor.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <optional>

#include "core/error.h"
#include "runtime/exit_codes.h"
#include "runtime/spawn.h"

namespace drydock::runtime {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr const char* kSupervisorName = "DRYDOCK_SUPERVISOR";
constexpr int kBadInputCode = 2;

std::chrono::nanoseconds seconds_ns(double s) { return std::chrono::nanoseconds(static_cast<int64_t>(s * 1e9)); }

struct Child {
  ChildSpec spec;
  pid_t pid = -1;
  SteadyClock::time_point began{}, again{};
  double pause_s = 0;
  std::deque<SteadyClock::time_point> ends;
  std::optional<int> code;  // of its last end
};

std::string ending_of(int status) {
  if (WIFSIGNALED(status)) return "ended by signal " + std::to_string(WTERMSIG(status));
  return "ended with code " + std::to_string(WEXITSTATUS(status));
}

sigset_t stop_signals() {
  sigset_t out;
  sigemptyset(&out);
  sigaddset(&out, SIGTERM);
  sigaddset(&out, SIGINT);
  return out;
}

class Supervision {
 public:
  explicit Supervision(const SupervisorOptions& o) : options_(o) {
    for (const ChildSpec& spec : o.children) {
      children_.emplace_back().spec = spec;
      children_.back().pause_s = o.first_pause_s;
    }
  }

  int run() {
    for (Child& c : children_) begin(c);
    for (;;) {
      if (wait_for_stop(kLookEvery) && !stopping_) stop(kExitStopped);
      reap();
      if (!stopping_)
        begin_again();
      else if (go_on_stopping())
        return result_;
    }
  }

 private:
  static constexpr double kLookEvery = 0.05;

  void log(const std::string& line) {
    if (options_.log) options_.log(line);
  }

  void begin(Child& c) {
    std::vector<std::string> environment = options_.environment;
    environment.push_back(std::string(kSupervisorName) + "=" + std::to_string(::getpid()));
    c.pid = spawn(options_.program, c.spec.arguments, environment, {}, c.spec.name);
    c.began = SteadyClock::now();
  }

  void reap() {
    for (Child& c : children_) {
      int status = 0;
      if (c.pid < 0 || ::waitpid(c.pid, &status, WNOHANG) != c.pid) continue;
      c.pid = -1;
      c.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      if (!stopping_) ended(c, status);
    }
  }

  void ended(Child& c, int status) {
    const auto now = SteadyClock::now();
    log(c.spec.name + ": " + ending_of(status));
    if (*c.code == kBadInputCode || *c.code == kExitNoAddress)
      return stop(*c.code);  // the same again would end the same
    c.ends.push_back(now);
    while (c.ends.front() < now - seconds_ns(options_.restart_window_s)) c.ends.pop_front();
    if (static_cast<int>(c.ends.size()) > options_.most_restarts) {
      log(c.spec.name + ": ended too often, giving up");
      return stop(kExitCrashLoop);
    }
    if (now - c.began > seconds_ns(options_.healthy_s)) c.pause_s = options_.first_pause_s;
    c.again = now + seconds_ns(c.pause_s);
    c.pause_s = std::min(2 * c.pause_s, options_.longest_pause_s);
  }

  void begin_again() {
    for (Child& c : children_) {
      if (c.pid >= 0 || SteadyClock::now() < c.again) continue;
      try {
        begin(c);
        log(c.spec.name + ": begun anew");
      } catch (const core::Error& error) {  // short of memory or processes: that may pass
        log(error.what());
        c.again = SteadyClock::now() + seconds_ns(c.pause_s);
      }
    }
  }

  void stop(int result) {
    stopping_ = true;
    result_ = result;
    killed_ = false;
    limit_ = SteadyClock::now() + seconds_ns(options_.stop_limit_s);
    if (children_.front().pid >= 0) ::kill(children_.front().pid, SIGTERM);
  }

  // True: nobody is left.
  bool go_on_stopping() {
    const bool first_gone = children_.front().pid < 0;
    if (first_gone && !told_rest_) {
      told_rest_ = true;
      if (result_ == kExitStopped && children_.front().code) result_ = *children_.front().code;
      for (const Child& c : children_)
        if (c.pid >= 0) ::kill(c.pid, SIGTERM);
    }
    if (SteadyClock::now() > limit_ && !killed_) {
      killed_ = true;
      if (result_ == kExitStopped) result_ = kExitCutOff;
      for (const Child& c : children_)
        if (c.pid >= 0) ::kill(c.pid, SIGKILL);
    }
    return std::all_of(children_.begin(), children_.end(), [](const Child& c) { return c.pid < 0; });
  }

  const SupervisorOptions& options_;
  std::vector<Child> children_;
  bool stopping_ = false, told_rest_ = false, killed_ = false;
  int result_ = kExitStopped;
  SteadyClock::time_point limit_{};
};

}  // namespace

int supervise(const SupervisorOptions& options) {
  hold_stop_signals();
  return Supervision(options).run();
}

void follow_supervisor() {
  const char* parent = std::getenv(kSupervisorName);
  if (!parent) return;
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (std::to_string(::getppid()) != parent) ::raise(SIGTERM);  // it went before it could be followed
}

void hold_stop_signals() {
  const sigset_t set = stop_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

bool wait_for_stop(double seconds) {
  const sigset_t set = stop_signals();
  const auto whole = static_cast<time_t>(seconds);
  const timespec limit{whole, static_cast<long>((seconds - static_cast<double>(whole)) * 1e9)};
  return ::sigtimedwait(&set, nullptr, &limit) > 0;
}

}  // namespace drydock::runtime
