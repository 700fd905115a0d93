#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <exception>
#include <utility>

#include "runtime/http_loop.h"
#include "runtime/trace_context.h"

namespace drydock::runtime {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr size_t kMostAhead = 64 << 10;          // bytes of next requests that are read while one is answered
constexpr size_t kMostAnswersAhead = 256 << 10;  // bytes unsent with which the next request waits
constexpr size_t kReadElsewhere = 16 << 10;      // bytes of a body whose reading would hold up others
constexpr double kLinger_s = 2;

double seconds_since(Clock::time_point from, Clock::time_point now) {
  return std::chrono::duration<double>(now - from).count();
}

}  // namespace

HttpConnection::HttpConnection(HttpLoop& loop, asio::ip::tcp::socket socket, std::string address)
    : loop_(loop),
      socket_(std::move(socket)),
      address_(std::move(address)),
      parser_(loop.shared.options.limits.header_bytes, loop.shared.options.limits.body_bytes),
      since_(Clock::now()),
      last_written_(since_) {}

void HttpConnection::start() { wait_readable(); }

// A defect or a lack of memory costs this connection, not the server.
void HttpConnection::guarded(void (HttpConnection::*step)()) {
  const auto self = shared_from_this();  // closing leaves the loop's set, which may hold the last reference
  try {
    (this->*step)();
  } catch (const std::exception& error) {
    loop_.shared.log.write(LogLevel::error, "connection_failed", {{"client", address_}, {"reason", error.what()}});
    close();
  }
}

void HttpConnection::wait_readable() {
  if (reading_ || state_ == State::closed) return;
  const bool held_up = state_ == State::handling || unsent() >= kMostAnswersAhead;
  if (held_up && in_.size() >= kMostAhead) return;
  reading_ = true;
  socket_.async_wait(asio::ip::tcp::socket::wait_read, [self = shared_from_this()](const error_code& error) {
    self->reading_ = false;
    if (!error && self->state_ != State::closed) self->guarded(&HttpConnection::on_readable);
  });
}

void HttpConnection::on_readable() {
  error_code error;
  const size_t bytes = socket_.read_some(asio::buffer(loop_.read_buffer), error);
  if (error == asio::error::would_block) return wait_readable();
  // The client went away, be it between requests or while it was answered.
  if (error) return close();
  if (state_ == State::reading || state_ == State::handling) in_.append(loop_.read_buffer.data(), bytes);
  process();
  wait_readable();
}

void HttpConnection::process() {
  if (processing_) return;
  processing_ = true;
  while (state_ == State::reading && !in_.empty() && unsent() < kMostAnswersAhead) {
    const size_t before = in_.size();
    parse_more();
    if (in_.size() == before) break;
  }
  processing_ = false;
}

void HttpConnection::parse_more() {
  const bool had_begun = parser_.begun(), had_head = parser_.head_done();
  in_.erase(0, parser_.put(in_));
  if (!had_begun || (!had_head && parser_.head_done())) since_ = Clock::now();
  if (parser_.refusal()) return refuse(ApiError(parser_.refusal()->status, parser_.refusal()->message));
  try {
    if (parser_.head_done()) take_body(!had_head);
  } catch (const ApiError& error) {
    const HttpRequest head = parser_.head();
    if (const auto kind = completion_kind(head)) loop_.metrics.count_request(*kind, error.status());
    return refuse(error, &head);
  }
  if (parser_.wants_continue() && !continued_) {
    continued_ = true;
    send("HTTP/1.1 100 Continue\r\n\r\n");
  }
  if (parser_.done()) handle();
}

// Who has no key, or asks for what isn't there, does not get to send a body. What has come counts, not what was
// announced: who sends nothing takes nothing from others.
void HttpConnection::take_body(bool head_is_new) {
  if (head_is_new && !parser_.done()) check_request(loop_.shared, parser_.head());
  const auto come = static_cast<int64_t>(parser_.body_bytes());
  const int64_t all = loop_.shared.body_bytes += come - std::exchange(held_, come);
  if (all > static_cast<int64_t>(loop_.shared.options.limits.bodies_bytes))
    throw ApiError(503, "the requests that are being read fill the memory for them");
}

void HttpConnection::release_body() { loop_.shared.body_bytes -= std::exchange(held_, 0); }

void HttpConnection::handle() {
  state_ = State::handling;
  ++requests_;
  exchange_ = begin_exchange(parser_.take(), loop_.random);
  parser_.reset();
  continued_ = false;
  head_sent_ = counted_ = false;
  try {
    check_request(loop_.shared, exchange_->request);
    const auto kind = completion_kind(exchange_->request);
    const bool large = exchange_->request.body.size() > kReadElsewhere;
    if (!kind) return large ? respond_elsewhere() : respond_now(respond(loop_.shared, *exchange_));
    const uint64_t seed = loop_.random.next();
    if (large) return read_elsewhere(*kind, seed);
    begin_answer(prepare(loop_.shared, *exchange_, *kind, seed));
  } catch (const ApiError& error) {
    respond_now(error_response(loop_.shared, error, &exchange_->request));
  } catch (const core::Error& error) {
    respond_now(error_response(loop_.shared, ApiError(500, error.what())));
  }
}

void HttpConnection::read_elsewhere(CompletionKind kind, uint64_t seed) {
  // The exchange stays as it is while the state is handling; a closed connection keeps it too.
  asio::post(loop_.readers, [self = shared_from_this(), kind, seed] {
    auto request = std::make_shared<CompletionRequest>();
    auto failure = std::make_shared<std::optional<ApiError>>();
    try {
      *request = prepare(self->loop_.shared, *self->exchange_, kind, seed);
    } catch (const ApiError& error) {
      *failure = error;
    } catch (const std::exception& error) {
      *failure = ApiError(500, error.what());
    }
    asio::post(self->loop_.io, [self, request, failure] {
      self->read_ = {std::move(*request), std::move(*failure)};
      self->guarded(&HttpConnection::on_read_elsewhere);
    });
  });
}

void HttpConnection::on_read_elsewhere() {
  const auto [request, failure] = std::exchange(read_, {});
  if (state_ != State::handling) return;
  try {
    if (failure) throw *failure;
    begin_answer(request);
  } catch (const ApiError& error) {
    respond_now(error_response(loop_.shared, error, &exchange_->request));
  }
}

// A long text to tokens, or back: as read_elsewhere.
void HttpConnection::respond_elsewhere() {
  asio::post(loop_.readers, [self = shared_from_this()] {
    const HttpRequest& request = self->exchange_->request;
    auto made = std::make_shared<HttpResponse>();
    try {
      *made = respond(self->loop_.shared, *self->exchange_);
    } catch (const ApiError& error) {
      *made = error_response(self->loop_.shared, error, &request);
    } catch (const std::exception& error) {
      *made = error_response(self->loop_.shared, ApiError(500, error.what()), &request);
    }
    asio::post(self->loop_.io, [self, made] {
      self->made_ = std::move(*made);
      self->guarded(&HttpConnection::on_respond_elsewhere);
    });
  });
}

void HttpConnection::on_respond_elsewhere() {
  const HttpResponse made = std::exchange(made_, {});
  if (state_ == State::handling) respond_now(made);
}

void HttpConnection::begin_answer(CompletionRequest request) {
  std::string().swap(exchange_->request.body);
  release_body();
  answer_ = submit(loop_.shared, *exchange_, std::move(request), loop_.mailbox);
  answer_->owner = this;
  ++loop_.shared.answers;
}

void HttpConnection::news() { guarded(&HttpConnection::on_news); }

void HttpConnection::on_news() {
  std::string events;
  answer_->collect(loop_.metrics, events);
  if (answer_->failure() && !head_sent_) return respond_now(error_response(loop_.shared, *answer_->failure()));
  if (answer_->streams()) {
    if (!events.empty()) stream(events);
  } else if (answer_->ended()) {
    respond_now({200, answer_->body(), "application/json", {}});
  }
}

void HttpConnection::stream(std::string& events) {
  const bool chunks = exchange_->request.chunks, ended = answer_->ended();
  std::string bytes;
  if (!head_sent_) {
    if (!chunks) exchange_->request.keep_alive = false;  // its end is the body's
    bytes = response_head({200, "", "text/event-stream; charset=utf-8", {}}, &*exchange_, std::nullopt, chunks,
                          keeps_alive());
    head_sent_ = true;
  }
  if (chunks) {
    char size[20];
    bytes.append(size, static_cast<size_t>(std::snprintf(size, sizeof size, "%zx\r\n", events.size())));
    bytes += events;
    bytes += ended ? "\r\n0\r\n\r\n" : "\r\n";
  } else {
    bytes += events;
  }
  const int status = answer_->failure() ? answer_->failure()->status() : 200;
  if (ended) count_exchange(status);
  send(bytes);
  if (state_ != State::handling) return;
  if (unsent() > loop_.shared.options.limits.unsent_bytes) {
    loop_.shared.log.write(LogLevel::warning, "slow_client",
                           {{"client", address_}, {"request_id", exchange_->request_id}});
    return close();
  }
  if (ended) end_exchange(status);
}

void HttpConnection::respond_now(const HttpResponse& response) {
  std::string bytes = response_head(response, &*exchange_, response.body.size(), false, keeps_alive());
  if (exchange_->request.method != "HEAD") bytes += response.body;
  count_exchange(response.status);
  send(bytes);
  if (state_ == State::handling) end_exchange(response.status);
}

// What is no request can have no successor on the connection.
void HttpConnection::refuse(const ApiError& error, const HttpRequest* request) {
  const HttpResponse response = error_response(loop_.shared, error, request);
  loop_.shared.log.write(LogLevel::info, "refused",
                         {{"client", address_}, {"status", int64_t{error.status()}}, {"reason", error.what()}});
  state_ = State::ending;
  release_body();
  parser_.reset();
  in_.clear();
  send(response_head(response, nullptr, response.body.size(), false, false) + response.body);
}

bool HttpConnection::keeps_alive() const { return exchange_->request.keep_alive && !loop_.shared.draining; }

// Once an exchange, and before its last byte is sent: who has the whole response finds it in the metrics.
void HttpConnection::count_exchange(int status) {
  const auto kind = completion_kind(exchange_->request);
  if (!kind || std::exchange(counted_, true)) return;
  loop_.metrics.count_request(*kind, status);
  if (!answer_) return;
  loop_.metrics.request_duration_s.observe(seconds_since(exchange_->begun, Clock::now()));
  loop_.metrics.prompt_tokens.observe(static_cast<double>(answer_->request().prompt_tokens));
  loop_.metrics.generation_tokens.observe(static_cast<double>(answer_->tokens()));
}

void HttpConnection::end_exchange(int status) {
  count_exchange(status);
  const double seconds = seconds_since(exchange_->begun, Clock::now());
  log_exchange(status, seconds);
  const bool goes_on = keeps_alive() && state_ == State::handling;
  drop_answer();
  release_body();
  if (state_ == State::closed) return;
  exchange_.reset();
  since_ = Clock::now();
  state_ = goes_on ? State::reading : State::ending;
  if (!goes_on) {
    if (unsent() == 0) written();
    return;
  }
  process();
  wait_readable();
}

void HttpConnection::log_exchange(int status, double seconds) const {
  const bool generation = completion_kind(exchange_->request).has_value();
  const LogLevel level = status >= 500 ? LogLevel::warning : generation ? LogLevel::info : LogLevel::debug;
  if (!loop_.shared.log.enabled(level)) return;
  const auto first = answer_ ? answer_->first_token() : std::nullopt;
  const std::string_view trace = trace_id(exchange_->trace_parent);
  loop_.shared.log.write(level, "request",
                         {{"request_id", exchange_->request_id},
                          {"trace_id", trace},
                          {"client", address_},
                          {"method", std::string_view(exchange_->request.method).substr(0, 20)},
                          {"path", std::string_view(exchange_->request.path).substr(0, 100)},
                          {"status", int64_t{status}},
                          {"prompt_tokens", answer_ ? answer_->request().prompt_tokens : 0},
                          {"generated_tokens", answer_ ? answer_->tokens() : 0},
                          {"finish", std::string_view(answer_ ? answer_->finish_reason() : "")},
                          {"ttft_ms", first ? seconds_since(exchange_->begun, *first) * 1e3 : 0.0},
                          {"duration_ms", seconds * 1e3}});
}

void HttpConnection::drop_answer() {
  if (!answer_) return;
  answer_->owner = nullptr;
  answer_->cancel();
  answer_.reset();
  --loop_.shared.answers;
}

void HttpConnection::send(std::string_view bytes) {
  if (state_ == State::closed) return;
  if (unsent() == 0) last_written_ = Clock::now();
  out_ += bytes;
  if (!writing_) flush();
}

void HttpConnection::flush() {
  error_code error;
  while (unsent() > 0) {
    const size_t bytes = socket_.write_some(asio::buffer(out_.data() + out_at_, unsent()), error);
    if (error == asio::error::would_block) return wait_writable();
    if (error) return close();
    out_at_ += bytes;
    last_written_ = Clock::now();
  }
  written();
}

void HttpConnection::wait_writable() {
  out_.erase(0, out_at_);
  out_at_ = 0;
  writing_ = true;
  socket_.async_wait(asio::ip::tcp::socket::wait_write, [self = shared_from_this()](const error_code& error) {
    self->writing_ = false;
    if (!error && self->state_ != State::closed) self->guarded(&HttpConnection::on_writable);
  });
}

void HttpConnection::on_writable() {
  flush();
  process();  // requests that waited until answers were taken
  wait_readable();
}

void HttpConnection::written() {
  out_at_ = 0;
  if (out_.capacity() > (64 << 10))
    std::string().swap(out_);
  else
    out_.clear();
  if (state_ != State::ending) return;
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  state_ = State::lingering;
  since_ = Clock::now();
  wait_readable();
}

void HttpConnection::check_deadline(Clock::time_point now) {
  const HttpLimits& limits = loop_.shared.options.limits;
  if (unsent() > 0 && seconds_since(last_written_, now) > limits.write_stall_s) return close();
  const double waited = seconds_since(since_, now);
  if (state_ == State::lingering && waited > kLinger_s) return close();
  if (state_ != State::reading || unsent() > 0) return;
  if (!parser_.begun()) {
    if (waited > (requests_ == 0 ? limits.header_s : limits.idle_s)) close();
  } else if (waited > (parser_.head_done() ? limits.body_s : limits.header_s)) {
    refuse(
        ApiError(408, parser_.head_done() ? "the request's body took too long" : "the request's head took too long"));
  }
}

void HttpConnection::close() {
  if (state_ == State::closed) return;
  const bool answering = state_ == State::handling;
  state_ = State::closed;
  release_body();
  if (answering) end_exchange(499);  // as nginx calls it: the client closed the request
  error_code ignored;
  socket_.close(ignored);
  loop_.addresses.remove(address_);
  --loop_.load;
  --loop_.shared.connections;
  loop_.connections.erase(shared_from_this());
}

}  // namespace drydock::runtime
