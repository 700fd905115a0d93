#pragma once
// A thread that serves connections, each of which stays with its thread, so that none of them needs a lock. Includes
// Asio: for http_*.cpp alone.
#include <array>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/random.h"
#include "runtime/answer.h"
#include "runtime/http_routes.h"

namespace drydock::runtime {

class HttpConnection;

// How many connections each address has.
class AddressCounts {
 public:
  bool add(const std::string& address, int most);  // false: it has `most` already
  void remove(const std::string& address);

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, int> counts_;
};

class HttpLoop {
 public:
  HttpLoop(HttpShared& shared, MetricsShard& metrics, boost::asio::thread_pool& readers, AddressCounts& addresses,
           uint64_t seed);
  ~HttpLoop();

  void run();  // starts the thread
  // From its own thread: takes a socket over, or drops it when the loop is stopped.
  void add(boost::asio::ip::tcp::socket socket, const std::string& address);
  void cut();     // closes all connections and takes no more; returns when that is done
  bool writes();  // some connection's bytes are on their way to the kernel
  void join();    // ends the thread

  boost::asio::io_context io;
  HttpShared& shared;
  MetricsShard& metrics;
  boost::asio::thread_pool& readers;  // where long bodies are read and tokenized
  AddressCounts& addresses;
  core::Random random;
  std::shared_ptr<Mailbox> mailbox;
  std::array<char, 64 << 10> read_buffer;  // of whichever connection reads now
  std::unordered_set<std::shared_ptr<HttpConnection>> connections;
  std::atomic<int> load{0};  // connections, those on their way included

 private:
  bool cut_ = false;
  void tick();
  void deliver();

  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::steady_timer timer_;
  std::vector<std::shared_ptr<Answer>> news_;
  std::thread thread_;
};

// One client. All calls are made by its loop's thread.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(HttpLoop& loop, boost::asio::ip::tcp::socket socket, std::string address);

  void start();
  bool writes() const { return unsent() > 0; }
  void check_deadline(Clock::time_point now);
  void news();   // its answer has some
  void close();  // at once, cancelling what is open

 private:
  enum class State : uint8_t {
    reading,    // waits for a request, or is in the middle of one
    handling,   // a request is answered
    ending,     // the last response is being written
    lingering,  // all is written; what the client still sends is dropped, so that it sees the response and no reset
    closed
  };

  void guarded(void (HttpConnection::*step)());
  void wait_readable();
  void wait_writable();
  void on_readable();
  void on_writable();
  void process();
  void parse_more();
  void handle();
  void read_elsewhere(CompletionKind kind, uint64_t seed);
  void on_read_elsewhere();
  void respond_elsewhere();
  void on_respond_elsewhere();
  void begin_answer(CompletionRequest request);
  void on_news();
  void respond_now(const HttpResponse& response);
  void take_body(bool head_is_new);
  void release_body();
  void refuse(const ApiError& error, const HttpRequest* request = nullptr);
  void stream(std::string& events);
  void count_exchange(int status);
  void end_exchange(int status);
  void log_exchange(int status, double seconds) const;
  void drop_answer();
  void send(std::string_view bytes);
  void flush();
  void written();
  bool keeps_alive() const;
  size_t unsent() const { return out_.size() - out_at_; }

  HttpLoop& loop_;
  boost::asio::ip::tcp::socket socket_;
  std::string address_;
  HttpParser parser_;
  State state_ = State::reading;
  std::string in_;   // read, not parsed yet
  std::string out_;  // to be written, from out_at_
  size_t out_at_ = 0;
  bool reading_ = false, writing_ = false, processing_ = false, continued_ = false, head_sent_ = false,
       counted_ = false;
  Clock::time_point since_;         // when the state's wait began
  Clock::time_point last_written_;  // when the client last took a byte, or had nothing to take
  std::optional<HttpExchange> exchange_;
  std::shared_ptr<Answer> answer_;
  std::pair<CompletionRequest, std::optional<ApiError>> read_;  // elsewhere, just now
  HttpResponse made_;                                           // elsewhere, just now
  int64_t requests_ = 0;
  int64_t held_ = 0;  // of the bytes that all bodies may have
};

}  // namespace drydock::runtime
