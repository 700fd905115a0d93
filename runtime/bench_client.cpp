#include "runtime/bench_client.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <queue>
#include <utility>

#include "core/error.h"
#include "runtime/bench_exchange.h"

namespace drydock::runtime {
namespace {

using simulator::Arrival;
using simulator::kNever;

constexpr double kRefusedPauseUs = 1e5;  // of a user whose request failed or was refused, unless told how long
constexpr double kMostPauseUs = 60e6;    // of what a server may ask for
constexpr double kGoneUs = 5e6;          // so long nothing but failures, and so many of them: the server is gone
constexpr int64_t kGoneFailures = 20;
constexpr double kGlanceUs = 1e5;  // how often a look is taken at BenchRun::stop

double cpu_now_s() {
  rusage used{};
  ::getrusage(RUSAGE_THREAD, &used);
  const auto s = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return s(used.ru_utime) + s(used.ru_stime);
}

// A descriptor that is closed with it.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {
    if (fd < 0) throw core::Error("bench: no more file descriptors; raise `ulimit -n`");
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

class BenchLoop {
 public:
  BenchLoop(const BenchRun& run, simulator::CountedLoad& load, simulator::Observer& observer);
  ~BenchLoop();
  BenchLoop(const BenchLoop&) = delete;
  BenchTotals serve();

 private:
  struct Later {
    double at_us;
    Exchange* exchange;  // to be sent again; null: its user goes on
    int64_t tag;
    bool operator<(const Later& other) const { return at_us > other.at_us; }
  };

  double clock_us() const { return std::chrono::duration<double, std::micro>(Clock::now() - begin_).count(); }
  bool stopped() const { return run_.stop && *run_.stop; }
  void start_due();
  void send(Exchange& exchange);
  void make_exchange();
  Exchange& fresh();
  void wait();
  void collect();
  void ended(Exchange& exchange, CURLcode code);
  void close(Exchange& exchange, double pause_us);
  void answered(Exchange& exchange);
  void tell_progress();

  static int on_socket(CURL*, curl_socket_t socket, int what, void* self, void* known);
  static int on_timer(CURLM*, long ms, void* self);

  const BenchRun& run_;
  simulator::CountedLoad& load_;
  BenchHub hub_;
  const std::string url_;
  CurlList headers_;
  Descriptor poll_, timer_;
  CURLM* multi_;
  std::vector<std::unique_ptr<Exchange>> exchanges_;
  std::vector<Exchange*> unused_;
  std::priority_queue<Later> later_;
  std::vector<Token> tokens_;
  BenchTotals out_;
  Clock::time_point begin_{};
  double curl_due_us_ = kNever, armed_us_ = -1, next_glance_us_ = 0;
  double last_answer_us_ = 0;
  int64_t sent_ = 0, closed_ = 0, in_flight_ = 0, failures_ = 0;
};

BenchLoop::BenchLoop(const BenchRun& run, simulator::CountedLoad& load, simulator::Observer& observer)
    : run_(run),
      load_(load),
      hub_{observer},
      url_(api_base(run.target.url) + (run.form.chat ? "/chat/completions" : "/completions")),
      headers_(request_headers(run.target)),
      poll_(::epoll_create1(EPOLL_CLOEXEC)),
      timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
  start_curl();
  multi_ = curl().multi_init();
  if (!multi_) throw core::Error("libcurl: out of memory");
  curl().multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &on_socket);
  curl().multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  curl().multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &on_timer);
  curl().multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = timer_.get();
  ::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, timer_.get(), &event);
}

BenchLoop::~BenchLoop() {
  for (const auto& exchange : exchanges_) curl().multi_remove_handle(multi_, exchange->easy.get());
  exchanges_.clear();
  curl().multi_cleanup(multi_);
}

int BenchLoop::on_socket(CURL*, curl_socket_t socket, int what, void* self, void* known) {
  auto& loop = *static_cast<BenchLoop*>(self);
  epoll_event event{};
  event.data.fd = socket;
  event.events = (what & CURL_POLL_IN ? static_cast<uint32_t>(EPOLLIN) : 0u) |
                 (what & CURL_POLL_OUT ? static_cast<uint32_t>(EPOLLOUT) : 0u);
  if (what == CURL_POLL_REMOVE) {
    ::epoll_ctl(loop.poll_.get(), EPOLL_CTL_DEL, socket, nullptr);
  } else {
    ::epoll_ctl(loop.poll_.get(), known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, socket, &event);
    curl().multi_assign(loop.multi_, socket, self);
  }
  return 0;
}

int BenchLoop::on_timer(CURLM*, long ms, void* self) {
  auto& loop = *static_cast<BenchLoop*>(self);
  loop.curl_due_us_ = ms < 0 ? kNever : loop.clock_us() + static_cast<double>(ms) * 1e3;
  return 0;
}

void BenchLoop::make_exchange() {
  exchanges_.push_back(std::make_unique<Exchange>(hub_, new_easy(run_.target, url_, headers_.get())));
  unused_.push_back(exchanges_.back().get());
}

Exchange& BenchLoop::fresh() {
  if (unused_.empty()) make_exchange();
  Exchange& out = *unused_.back();
  unused_.pop_back();
  out.record = {};
  out.tries = 0;
  return out;
}

void BenchLoop::send(Exchange& x) {
  x.begin();
  x.record.started_us = clock_us();
  if (x.tries++ == 0) out_.late_ms.push_back(std::max(0.0, x.record.started_us - x.record.arrival_us) * 1e-3);
  curl().easy_setopt(x.easy.get(), CURLOPT_POSTFIELDS, x.body.c_str());
  curl().easy_setopt(x.easy.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(x.body.size()));
  curl().multi_add_handle(multi_, x.easy.get());
}

void BenchLoop::start_due() {
  hub_.now_us = clock_us();
  while (!later_.empty() && later_.top().at_us <= hub_.now_us) {
    const Later l = later_.top();
    later_.pop();
    if (l.exchange)
      send(*l.exchange);
    else
      load_.finished(l.tag, hub_.now_us);
  }
  // One at a time: what has come meanwhile is not to wait for a burst of new requests to be written.
  if (stopped() || load_.next_us() > hub_.now_us) return;
  const Arrival a = load_.take();
  Exchange& x = fresh();
  x.tag = a.tag;
  x.record.arrival_us = a.at_us - a.waited_us;
  x.record.warmup = a.warmup;
  x.asked_tokens = x.record.output_tokens = a.output_tokens;
  x.record.prompt_tokens = a.prompt_tokens;
  prompt_tokens(a, load_.hash_tokens(), run_.tokens, run_.seed, sent_++, tokens_);
  x.body = request_body(run_.form, tokens_, a.output_tokens);
  out_.most_in_flight = std::max(out_.most_in_flight, ++in_flight_);
  out_.totals.last_arrival_us = a.at_us;
  out_.totals.tokens_at_last_arrival = hub_.output_tokens;
  out_.totals.waiting_at_last_arrival = static_cast<double>(in_flight_);
  send(x);
}

void BenchLoop::answered(Exchange& x) {
  const int64_t tokens = x.completion_tokens > 0 ? x.completion_tokens : x.chunks;
  hub_.output_tokens += static_cast<double>(tokens - x.chunks);
  x.record.output_tokens = tokens;
  x.record.cached_tokens = std::max<int64_t>(0, x.cached_tokens);
  out_.wrong_lengths += tokens != x.asked_tokens;
  if (x.prompt_tokens > 0) {
    out_.prompt_tokens += x.prompt_tokens;
    out_.asked_prompt_tokens += x.record.prompt_tokens;
    out_.cached_tokens += x.record.cached_tokens;
  }
  ++out_.answered;
}

// The answer of `x` is over, whichever way; its user waits so long before it goes on.
void BenchLoop::close(Exchange& x, double pause_us) {
  out_.totals.lost += x.record.lost;
  out_.totals.rejected += x.record.rejected;
  if (x.record.last_us < 0) x.record.last_us = hub_.now_us;
  --in_flight_;
  unused_.push_back(&x);
  hub_.observer.done(x.record);
  if (++closed_ == run_.steady_after)
    out_.totals.steady_us = hub_.now_us, out_.totals.tokens_at_steady = hub_.output_tokens;
  if (pause_us > 0)
    later_.push({hub_.now_us + pause_us, nullptr, x.tag});
  else
    load_.finished(x.tag, hub_.now_us);
}

void BenchLoop::ended(Exchange& x, CURLcode code) {
  const std::string why = x.failure(code);
  if (why.empty()) {
    answered(x);
    failures_ = 0;
    last_answer_us_ = hub_.now_us;
    return close(x, 0);
  }
  ++failures_;
  const bool refused = x.status == 429 || x.status == 503;
  const double pause_us = std::clamp(x.retry_after_s >= 0 ? x.retry_after_s * 1e6 : kRefusedPauseUs, 1e3, kMostPauseUs);
  hub_.output_tokens -= static_cast<double>(x.chunks);
  if (refused && x.tries <= run_.retries && !stopped()) {
    ++out_.retried;
    later_.push({hub_.now_us + pause_us, &x, 0});
    return;
  }
  x.record.rejected = refused;
  x.record.lost = !refused;
  ++out_.errors[why];
  close(x, pause_us);
}

void BenchLoop::collect() {
  int left = 0;
  while (CURLMsg* message = curl().multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    CURL* easy = message->easy_handle;
    const CURLcode code = message->data.result;
    Exchange* x = nullptr;
    curl().easy_getinfo(easy, CURLINFO_PRIVATE, &x);
    curl().multi_remove_handle(multi_, easy);
    ended(*x, code);
  }
}

// Sleeps until a socket or a clock calls, and hears what the sockets have.
void BenchLoop::wait() {
  const double later_us = later_.empty() ? kNever : later_.top().at_us;
  const double due_us = std::min({stopped() ? kNever : load_.next_us(), curl_due_us_, later_us});
  if (due_us < kNever && due_us != armed_us_) {
    const auto at = begin_.time_since_epoch() + std::chrono::nanoseconds(std::llround(std::max(1.0, due_us) * 1e3));
    itimerspec when{};
    when.it_value.tv_sec = at / std::chrono::seconds(1);
    when.it_value.tv_nsec = (at % std::chrono::seconds(1)).count();
    ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
    armed_us_ = due_us;
  }
  constexpr int kEvents = 64;
  epoll_event events[kEvents];
  const int ready =
      ::epoll_wait(poll_.get(), events, kEvents, due_us <= hub_.now_us ? 0 : static_cast<int>(kGlanceUs * 1e-3));
  hub_.now_us = clock_us();
  int running = 0;
  for (int i = 0; i < ready; ++i) {
    if (events[i].data.fd == timer_.get()) {
      uint64_t times = 0;
      if (::read(timer_.get(), &times, sizeof times) > 0) armed_us_ = -1;
      continue;
    }
    const int what = (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
                     (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                     (events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
    curl().multi_socket_action(multi_, events[i].data.fd, what, &running);
  }
  if (curl_due_us_ <= hub_.now_us) {
    curl_due_us_ = kNever;
    curl().multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
  }
  collect();
}

void BenchLoop::tell_progress() {
  if (hub_.now_us < next_glance_us_) return;
  next_glance_us_ = hub_.now_us + 2 * kGlanceUs;
  if (run_.progress)
    run_.progress({out_.answered, in_flight_, out_.totals.lost + out_.totals.rejected, hub_.now_us * 1e-6});
}

BenchTotals BenchLoop::serve() {
  constexpr int64_t kMostReady = 4096;
  for (int64_t i = 0; i < std::min(run_.streams, kMostReady); ++i) make_exchange();
  const double cpu_s = cpu_now_s();
  begin_ = Clock::now();
  while (!load_.over()) {
    if (stopped() || hub_.observer.enough()) {
      out_.end = BenchEnd::stopped;
      break;
    }
    if (failures_ >= kGoneFailures && hub_.now_us - last_answer_us_ > kGoneUs) {
      out_.end = BenchEnd::gone;
      break;
    }
    start_due();
    wait();
    tell_progress();
  }
  out_.totals.unfinished = in_flight_;
  out_.totals.end_us = hub_.now_us = clock_us();
  out_.chunks = hub_.chunks;
  out_.bytes = hub_.bytes;
  out_.wall_s = hub_.now_us * 1e-6;
  out_.cpu_s = cpu_now_s() - cpu_s;
  return std::move(out_);
}

}  // namespace

BenchTotals run_bench(const BenchRun& run, simulator::CountedLoad& load, simulator::Observer& observer) {
  return BenchLoop(run, load, observer).serve();
}

}  // namespace drydock::runtime
