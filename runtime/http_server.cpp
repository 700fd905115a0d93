#include "runtime/http_server.h"

#include <netinet/tcp.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <future>
#include <random>

#include "core/error.h"
#include "runtime/http_loop.h"

namespace drydock::runtime {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kTick = std::chrono::milliseconds(100);
constexpr int kSendBuffer = 128 << 10;  // of the kernel: with more, a client that does not read is noticed late
constexpr int kSpareFiles = 256;        // descriptors beside those of connections

// As far as the hard limit goes; what is missing shows as connections that are accepted later.
void raise_open_files(int connections) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const auto want = static_cast<rlim_t>(connections) + kSpareFiles;
  if (limit.rlim_cur >= want) return;
  limit.rlim_cur = limit.rlim_max == RLIM_INFINITY ? want : std::min(want, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
}

void set_up(tcp::socket& socket, double vanished_s) {
  error_code ignored;
  socket.non_blocking(true, ignored);
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  socket.set_option(asio::socket_base::send_buffer_size(kSendBuffer), ignored);
  const auto set = [&socket](int option, double value) {
    const int whole = std::max(1, static_cast<int>(value));
    setsockopt(socket.native_handle(), IPPROTO_TCP, option, &whole, sizeof whole);
  };
  set(TCP_USER_TIMEOUT, vanished_s * 1e3);
  // One that vanished while it waits is asked for: nothing else would be sent to it.
  set(TCP_KEEPIDLE, vanished_s);
  set(TCP_KEEPINTVL, vanished_s / 3);
}

void check_options(const HttpOptions& options) {
  const auto want = [](bool holds, const char* message) {
    if (!holds) throw core::Error(message);
  };
  want(!options.models.empty(), "HTTP server: want the name of a model at least");
  want(options.port >= 0 && options.port <= 65535, "HTTP server: want a port from 0 to 65535");
  want(options.threads >= 1 && options.threads <= 64, "HTTP server: want 1 to 64 threads");
  want(options.limits.connections >= 1 && options.limits.connections_per_address >= 1,
       "HTTP server: want to allow one connection at least");
  want(options.limits.header_bytes >= 256 && options.limits.header_bytes <= (1 << 20),
       "HTTP server: want a limit of 256 bytes to 1 MiB for a request's head");
  want(options.limits.vanished_s >= 0.001 && options.limits.vanished_s <= 3600,
       "HTTP server: want to wait 0.001 to 3600 s for a client that may have vanished");
  want(options.limits.choices >= 1 && options.limits.choices <= 1024, "HTTP server: want 1 to 1024 choices a request");
}

}  // namespace

bool AddressCounts::add(const std::string& address, int most) {
  const std::lock_guard lock(mutex_);
  int& count = counts_[address];
  if (count >= most) return false;
  ++count;
  return true;
}

void AddressCounts::remove(const std::string& address) {
  const std::lock_guard lock(mutex_);
  const auto found = counts_.find(address);
  if (found != counts_.end() && --found->second == 0) counts_.erase(found);
}

HttpLoop::HttpLoop(HttpShared& the_shared, MetricsShard& the_metrics, asio::thread_pool& the_readers,
                   AddressCounts& the_addresses, uint64_t seed)
    : io(1),
      shared(the_shared),
      metrics(the_metrics),
      readers(the_readers),
      addresses(the_addresses),
      random(seed),
      mailbox(std::make_shared<Mailbox>([this] { asio::post(io, [this] { deliver(); }); })),
      work_(asio::make_work_guard(io)),
      timer_(io) {}

HttpLoop::~HttpLoop() { join(); }

void HttpLoop::run() {
  tick();
  thread_ = std::thread([this] { io.run(); });
}

void HttpLoop::add(tcp::socket socket, const std::string& address) {
  const auto connection = std::make_shared<HttpConnection>(*this, std::move(socket), address);
  connections.insert(connection);
  if (cut_) return connection->close();
  connection->start();
}

void HttpLoop::cut() {
  std::promise<void> done;
  asio::post(io, [&] {
    cut_ = true;
    mailbox->close();
    while (!connections.empty()) {
      const auto connection = *connections.begin();
      connection->close();
    }
    done.set_value();
  });
  done.get_future().wait();
}

bool HttpLoop::writes() {
  std::promise<bool> answer;
  asio::post(io, [&] {
    answer.set_value(
        std::any_of(connections.begin(), connections.end(), [](const auto& one) { return one->writes(); }));
  });
  return answer.get_future().get();
}

void HttpLoop::join() {
  if (!thread_.joinable()) return;
  asio::post(io, [this] {
    timer_.cancel();
    work_.reset();
  });
  thread_.join();
}

void HttpLoop::tick() {
  const auto now = Clock::now();
  // A copy: what is closed leaves the set.
  const std::vector<std::shared_ptr<HttpConnection>> all(connections.begin(), connections.end());
  for (const auto& connection : all) connection->check_deadline(now);
  if (cut_) return;
  timer_.expires_after(kTick);
  timer_.async_wait([this](const error_code& error) {
    if (!error) tick();
  });
}

void HttpLoop::deliver() {
  mailbox->take(news_);
  for (const auto& answer : news_)
    if (answer->owner) static_cast<HttpConnection*>(answer->owner)->news();
  news_.clear();
}

struct HttpServer::Impl {
  Impl(Service& service, const TextCodec& codec, HttpOptions options)
      : shared(service, codec, std::move(options)), readers(static_cast<size_t>(shared.options.threads)) {
    std::random_device device;
    for (const auto& metrics : shared.metrics)
      loops.push_back(
          std::make_unique<HttpLoop>(shared, *metrics, readers, addresses, (uint64_t{device()} << 32) | device()));
  }

  void listen();
  void accept();
  void accepted(HttpLoop& loop, tcp::socket socket);
  void turn_away(tcp::socket& socket, int status, const char* message);

  HttpShared shared;
  AddressCounts addresses;
  asio::thread_pool readers;
  std::vector<std::unique_ptr<HttpLoop>> loops;
  std::unique_ptr<tcp::acceptor> acceptor;
  std::unique_ptr<asio::steady_timer> pause;
  int port = 0;
  bool started = false, stopped = false;
};

void HttpServer::Impl::listen() {
  const HttpOptions& options = shared.options;
  const std::string where = options.host + ":" + std::to_string(options.port);
  error_code error;
  const auto address = asio::ip::make_address(options.host == "localhost" ? "127.0.0.1" : options.host, error);
  if (error)
    throw core::Error("host '" + options.host.substr(0, 100) +
                      "' is no numeric address; want 127.0.0.1 or 0.0.0.0, say");
  acceptor = std::make_unique<tcp::acceptor>(loops.front()->io);
  pause = std::make_unique<asio::steady_timer>(loops.front()->io);
  const tcp::endpoint endpoint(address, static_cast<unsigned short>(options.port));
  acceptor->open(endpoint.protocol(), error);
  if (!error) acceptor->set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor->bind(endpoint, error);
  if (!error) acceptor->listen(4096, error);
  if (error)
    throw core::Error("can't listen on " + where + ": " + error.message() + "; choose another address or port");
  port = acceptor->local_endpoint().port();
  if (!address.is_loopback() && options.api_keys.empty())
    shared.log.write(LogLevel::warning, "open_to_all",
                     {{"reason", std::string_view("listens beyond this machine and needs no key")}});
}

void HttpServer::Impl::accept() {
  HttpLoop& loop =
      **std::min_element(loops.begin(), loops.end(), [](const auto& a, const auto& b) { return a->load < b->load; });
  acceptor->async_accept(loop.io, [this, &loop](const error_code& error, tcp::socket socket) {
    if (error == asio::error::operation_aborted || !acceptor->is_open()) return;
    if (!error) accepted(loop, std::move(socket));
    if (error == asio::error::no_descriptors || error == asio::error::no_memory ||
        error == error_code(ENFILE, boost::system::system_category())) {
      pause->expires_after(kTick);  // others will close theirs
      return pause->async_wait([this](const error_code& stopped_waiting) {
        if (!stopped_waiting) accept();
      });
    }
    accept();
  });
}

void HttpServer::Impl::accepted(HttpLoop& loop, tcp::socket socket) {
  error_code error;
  const auto endpoint = socket.remote_endpoint(error);
  if (error) return;  // gone already
  set_up(socket, shared.options.limits.vanished_s);
  const HttpLimits& limits = shared.options.limits;
  if (shared.connections >= limits.connections) return turn_away(socket, 503, "too many connections");
  const std::string address = endpoint.address().to_string();
  if (!addresses.add(address, limits.connections_per_address))
    return turn_away(socket, 429, "too many connections from this address");
  ++shared.connections;
  ++loop.load;
  const auto held = std::make_shared<tcp::socket>(std::move(socket));
  asio::post(loop.io, [&loop, held, address] { loop.add(std::move(*held), address); });
}

// One try: the kernel's buffer of a new connection has room for it.
void HttpServer::Impl::turn_away(tcp::socket& socket, int status, const char* message) {
  const HttpResponse response = error_response(shared, ApiError(status, message));
  const std::string bytes = response_head(response, nullptr, response.body.size(), false, false) + response.body;
  error_code ignored;
  socket.write_some(asio::buffer(bytes), ignored);
  socket.shutdown(tcp::socket::shutdown_both, ignored);
}

HttpServer::HttpServer(Service& service, const TextCodec& codec, HttpOptions options) {
  check_options(options);
  impl_ = std::make_unique<Impl>(service, codec, std::move(options));
}

HttpServer::~HttpServer() { stop(); }

void HttpServer::start() {
  if (impl_->started) return;
  raise_open_files(impl_->shared.options.limits.connections);
  impl_->listen();
  impl_->started = true;
  impl_->accept();
  for (const auto& loop : impl_->loops) loop->run();
}

int HttpServer::port() const { return impl_->port; }

void HttpServer::begin_drain() { impl_->shared.draining = true; }

bool HttpServer::drain(double seconds) {
  begin_drain();
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  const auto busy = [this] {
    if (!impl_->started || impl_->stopped) return false;
    return open_answers() > 0 ||
           std::any_of(impl_->loops.begin(), impl_->loops.end(), [](const auto& loop) { return loop->writes(); });
  };
  while (busy()) {
    if (Clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

void HttpServer::stop() {
  if (!impl_->started || impl_->stopped) return;
  impl_->stopped = true;
  begin_drain();
  asio::post(impl_->loops.front()->io, [impl = impl_.get()] {
    error_code ignored;
    impl->acceptor->close(ignored);
    impl->pause->cancel();
  });
  for (const auto& loop : impl_->loops) loop->cut();
  impl_->readers.join();  // no connection is left that could give it more
  for (const auto& loop : impl_->loops) loop->join();
}

int64_t HttpServer::open_connections() const { return impl_->shared.connections; }
int64_t HttpServer::open_answers() const { return impl_->shared.answers; }

}  // namespace drydock::runtime
