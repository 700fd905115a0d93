// Messages as bytes, the handshake, and workers behind connections; KV whose bytes matter.
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "core/file.h"
#include "runtime/channel.h"
#include "runtime/kv_port.h"
#include "runtime/kv_receiver.h"
#include "runtime/remote_worker.h"
#include "runtime/worker_port.h"
#include "tests/effort.h"
#include "tests/runtime_bed.h"
#include "tests/runtime_memory_engine.h"

using namespace drydock;
using namespace drydock::runtime;

namespace {

const std::string kSecret = "a secret of the tests";

Start full_start() {
  Start s;
  s.attempt = 7, s.stage = Stage::decode, s.tokens = {1, 2, -3}, s.answered = 1, s.most_tokens = 9;
  s.sampling = {0.5f, 0.9f, 40, 11, 3};
  s.stop_tokens = {5, 6};
  s.source = {"127.0.0.1:9", 8, 2};
  s.trace = "00-ab-cd-01", s.name = "cmpl-1";
  return s;
}

std::vector<News> full_news() {
  News n;
  n.attempt = 3, n.kind = NewsKind::finished, n.finish = Finish::stop, n.delay_us = 12.5, n.cached_tokens = 4;
  n.tokens = {{65, -0.5f, {{65, -0.5f}, {66, -1}}}, {66, 0, {}}};
  n.reason = "why";
  return {n, News{}};
}

// Every decoder, on bytes that may be anything.
void decode_all(std::span<const std::byte> body) {
  const auto tried = [&](auto decode) {
    try {
      decode(body);
    } catch (const core::Error&) {
    }
  };
  tried(decode_hello), tried(decode_start), tried(decode_attempt), tried(decode_news), tried(decode_pulse);
  tried(decode_kv_fetch), tried(decode_kv_piece), tried(decode_text);
}

}  // namespace

TEST_CASE("messages come out as they went in, and are refused when cut short or too long") {
  const Start s = decode_start(encode(full_start()));
  CHECK(s.attempt == 7);
  CHECK(s.stage == Stage::decode);
  CHECK(s.tokens == std::vector<Token>{1, 2, -3});
  CHECK(s.sampling.seed == 11);
  CHECK(s.sampling.logprobs == 3);
  CHECK(s.stop_tokens == std::vector<Token>{5, 6});
  CHECK(s.source.address == "127.0.0.1:9");
  CHECK(s.trace == "00-ab-cd-01");
  const auto news = decode_news(encode(full_news()));
  REQUIRE(news.size() == 2);
  CHECK(news[0].finish == Finish::stop);
  CHECK(news[0].tokens[0].top[1].token == 66);
  CHECK(news[0].reason == "why");
  Pulse p;
  p.steps = 5, p.step_age_seconds = 0.25;
  CHECK(decode_pulse(encode(p)).steps == 5);
  CHECK(decode_pulse(encode(p)).step_age_seconds == 0.25);
  KvPiece piece{1, true, 2, 3, 4, 5, {std::byte{6}}};
  CHECK(decode_kv_piece(encode(piece)).bytes == piece.bytes);
  for (const Bytes& whole :
       {encode(full_start()), encode(full_news()), encode(p), encode(piece), encode(Hello{"a", "b", 1, 1, 1})}) {
    for (size_t size = 0; size < whole.size(); ++size) decode_all(std::span(whole).first(size));
    Bytes longer = whole;
    longer.push_back(std::byte{0});
    decode_all(longer);
  }
  const Bytes start = encode(full_start());
  CHECK_THROWS_AS(decode_start(std::span(start).first(20)), core::Error);
  // A wait that is no moment: its nanoseconds would not fit 64 bits.
  std::vector<News> late = full_news();
  late[0].delay_us = 1e17;
  CHECK_THROWS_AS(decode_news(encode(late)), core::Error);
  for (double KvPiece::*wait : {&KvPiece::wait_us, &KvPiece::link_us}) {
    KvPiece slow = piece;
    slow.*wait = 1e17;
    CHECK_THROWS_AS(decode_kv_piece(encode(slow)), core::Error);
  }
  CHECK_THROWS_AS(decode_kv_fetch(encode(KvFetch{1, 0, 1, 1e17})), core::Error);
}

TEST_CASE("random bytes are refused or read, never more") {
  core::Random random(3);
  for (int i = 0; i < 5000 / tests::kLighter; ++i) {
    Bytes bytes(static_cast<size_t>(random.integer(0, 200)));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random.integer(0, 255));
    decode_all(bytes);
    Bytes start = encode(full_start());
    start[static_cast<size_t>(random.integer(0, static_cast<int64_t>(start.size()) - 1))] =
        static_cast<std::byte>(random.integer(0, 255));
    decode_all(start);
  }
}

TEST_CASE("a changed bit of a frame is noticed") {
  const Bytes body = encode(full_start()), whole = frame(FrameKind::start, body);
  const auto accepts = [](std::span<const std::byte> bytes) {
    try {
      check_body(parse_header(bytes.first(kFrameHeaderBytes), kMostFrameBytes), bytes.subspan(kFrameHeaderBytes));
      return true;
    } catch (const core::Error&) {
      return false;
    }
  };
  CHECK(accepts(whole));
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    Bytes changed = whole;
    changed[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    CAPTURE(bit);
    CHECK_FALSE(accepts(changed));
  }
}

namespace {

// A router whose workers are behind connections to this process itself.
struct RemoteBed {
  explicit RemoteBed(const BedOptions& options)
      : o(options), local(Bed::dispatcher_spec(o)), port(local, {"127.0.0.1", 0}, kSecret, {}) {
    for (const auto& pool : o.pools)
      for (int i = 0; i < pool.replicas; ++i) begin(pool.stage, i);
    wait_ready();
  }
  void begin(Stage stage, int index) {
    WorkerSpec spec;
    spec.name = worker_name(stage, index);
    spec.stage = stage;
    spec.policy = o.policy;
    spec.kv_blocks = o.kv_blocks;
    spec.block_tokens = o.block_tokens;
    workers[spec.name] =
        std::make_unique<RemoteWorker>(spec, std::make_unique<MemoryEngine>(o.kv_blocks, o.block_tokens),
                                       RemoteWorkerOptions{{"127.0.0.1", port.port()}, kSecret, "127.0.0.1", 0, {}});
  }
  void wait_ready() {
    for (int i = 0; i < 2000 && !local.ready(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    REQUIRE(local.ready());
  }
  std::shared_ptr<Reader> ask(const std::vector<Token>& prompt, int64_t tokens, uint64_t seed) {
    Generation g;
    g.prompt = prompt;
    g.most_tokens = tokens;
    g.sampling.seed = seed;
    auto reader = std::make_shared<Reader>();
    Service::Id id;
    REQUIRE(local.submit(g, reader, id) == Admission::accepted);
    return reader;
  }
  BedOptions o;
  Dispatcher local;
  WorkerPort port;
  std::map<std::string, std::unique_ptr<RemoteWorker>> workers;
};

std::vector<Token> prompt_of(uint64_t seed, int64_t tokens) {
  core::Random random(seed);
  std::vector<Token> out;
  for (int64_t i = 0; i < tokens; ++i) out.push_back(static_cast<Token>(random.integer(0, 999)));
  return out;
}

}  // namespace

TEST_CASE("behind connections answers are exact, KV comes over the wire whole") {
  BedOptions o;
  o.policy = scheduler::vllm(512, 16);
  SUBCASE("whole") { o.pools = {{Stage::whole, 2}}; }
  SUBCASE("prefill and decode") { o.pools = {{Stage::prefill, 2}, {Stage::decode, 2}}; }
  SUBCASE("prefix cache") { o.policy.prefix_cache = true; }
  SUBCASE("full KV cache") { o.kv_blocks = 40; }
  SUBCASE("full KV caches of prefill and decode") {
    o.pools = {{Stage::prefill, 2}, {Stage::decode, 2}};
    o.kv_blocks = 40;
  }
  RemoteBed bed(o);
  std::vector<std::shared_ptr<Reader>> readers;
  const auto prompt = [](uint64_t i) { return prompt_of(i % 7, 20 + static_cast<int64_t>(i % 7) * 37); };
  for (uint64_t i = 0; i < 60; ++i) readers.push_back(bed.ask(prompt(i), 40, i));
  for (uint64_t i = 0; i < readers.size(); ++i) {
    REQUIRE(readers[i]->wait());
    CHECK(readers[i]->tokens() == memory_answer(prompt(i), 40, i));
  }
  for (const auto& [name, worker] : bed.workers)
    for (int tried = 0; tried < 200; ++tried) try {
        worker->worker().check();
        break;
      } catch (const std::logic_error& error) {
        if (tried == 199) FAIL(error.what());
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
}

TEST_CASE("a token that the model does not have is refused, and hurts nobody") {
  RemoteBed bed(BedOptions{});
  for (const Token bad : {-1, 1000, INT32_MAX}) {
    const auto reader = bed.ask({1, bad, 2}, 5, 1);
    REQUIRE(reader->wait());
    CHECK(reader->finish() == Finish::failed);
    CHECK(reader->reason() == "a token is not in the model's vocabulary");
  }
  const auto reader = bed.ask({1, 2}, 5, 1);
  REQUIRE(reader->wait());
  CHECK(reader->tokens() == memory_answer({1, 2}, 5, 1));
  CHECK(bed.local.stats().migrated == 0);
}

TEST_CASE("a worker that goes is noticed, its answers go on elsewhere, and it may come again") {
  BedOptions o;
  SUBCASE("whole") { o.pools = {{Stage::whole, 2}}; }
  SUBCASE("prefill and decode") { o.pools = {{Stage::prefill, 2}, {Stage::decode, 2}}; }
  RemoteBed bed(o);
  const std::vector<std::string> names = [&] {
    std::vector<std::string> out;
    for (const auto& [name, worker] : bed.workers) out.push_back(name);
    return out;
  }();
  for (const std::string& name : names) {
    std::vector<std::shared_ptr<Reader>> readers;
    for (uint64_t i = 0; i < 10; ++i) readers.push_back(bed.ask(prompt_of(i, 300), 400, i));
    readers[0]->wait_tokens(5);
    bed.workers[name].reset();
    for (uint64_t i = 0; i < readers.size(); ++i) {
      REQUIRE(readers[i]->wait());
      CHECK(readers[i]->tokens() == memory_answer(prompt_of(i, 300), 400, i));
    }
    bed.begin(name.starts_with("prefill")  ? Stage::prefill
              : name.starts_with("decode") ? Stage::decode
                                           : Stage::whole,
              name.back() - '0');
    bed.wait_ready();
  }
  CHECK(bed.local.stats().failed == 0);
}

namespace {

// Its KV can't be copied any more once `broken` says so.
struct BrokenKv : MemoryEngine {
  BrokenKv(int64_t blocks, int64_t block_tokens, std::shared_ptr<std::atomic<bool>> is_broken)
      : MemoryEngine(blocks, block_tokens), broken(std::move(is_broken)) {}
  void read_kv(int rank, std::span<const int32_t> blocks, std::span<std::byte> out) override {
    if (*broken) throw core::Error("the device is lost");
    MemoryEngine::read_kv(rank, blocks, out);
  }
  void write_kv(int rank, std::span<const int32_t> blocks, std::span<const std::byte> in) override {
    if (*broken) throw core::Error("the device is lost");
    MemoryEngine::write_kv(rank, blocks, in);
  }
  std::shared_ptr<std::atomic<bool>> broken;
};

}  // namespace

TEST_CASE("an engine that fails while KV is copied costs its worker alone") {
  std::string failing;
  SUBCASE("read") { failing = "prefill/0"; }
  SUBCASE("write") { failing = "decode/0"; }
  CAPTURE(failing);
  const auto broken = std::make_shared<std::atomic<bool>>(true);
  DispatcherSpec spec;
  spec.pools = {{Stage::prefill, 1}, {Stage::decode, 1}};
  spec.migration_limit = 100;
  Dispatcher dispatcher(spec);
  std::vector<LocalWorker> workers;
  for (const Stage stage : {Stage::prefill, Stage::decode}) {
    WorkerSpec worker;
    worker.name = worker_name(stage, 0);
    worker.stage = stage;
    worker.policy = scheduler::vllm(512, 16);
    worker.kv_blocks = 100, worker.block_tokens = 16;
    const auto breaks = worker.name == failing ? broken : std::make_shared<std::atomic<bool>>(false);
    workers.push_back({worker, [breaks] { return std::make_unique<BrokenKv>(100, 16, breaks); }});
  }
  LocalFleet fleet(dispatcher, std::move(workers), std::chrono::milliseconds(5));
  std::vector<std::shared_ptr<Reader>> readers;
  for (uint64_t i = 0; i < 4; ++i) {
    Generation g;
    g.prompt = prompt_of(i, 40);
    g.most_tokens = 20;
    g.sampling.seed = i;
    readers.push_back(std::make_shared<Reader>());
    Service::Id id;
    REQUIRE(dispatcher.submit(g, readers.back(), id) == Admission::accepted);
  }
  for (int i = 0; i < 5000 && fleet.failure().empty(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(fleet.failure() == failing + ": the device is lost");
  *broken = false;
  for (uint64_t i = 0; i < readers.size(); ++i) {
    REQUIRE(readers[i]->wait());
    CHECK(readers[i]->tokens() == memory_answer(prompt_of(i, 40), 20, i));
  }
}

namespace {

// What was done with jobs, in order: "1 came", "2 lost".
struct Ledger {
  KvReceiver::Hooks hooks() {
    return {[] { return 0.0; }, [](double) {}, [](Attempt, int64_t, std::span<const std::byte>) { return true; },
            [this](Attempt attempt, bool came, const std::string&) {
              const std::scoped_lock lock(mutex);
              done.push_back(std::to_string(attempt) + (came ? " came" : " lost"));
            }};
  }
  bool wait(size_t count, double seconds) {
    for (const auto end = Clock::now() + std::chrono::duration<double>(seconds); Clock::now() < end;) {
      {
        const std::scoped_lock lock(mutex);
        if (done.size() >= count) return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  }
  std::mutex mutex;
  std::vector<std::string> done;
};

int descriptors() { return static_cast<int>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {})); }

struct NoSink : WorkerSink {
  void news(std::vector<News>) override {}
  void lost(const std::string&) override {}
};

// A prefill worker that holds the KV of attempts 1 to 9, and its port.
struct Holder {
  Holder() {
    WorkerSpec spec;
    spec.name = "prefill/0", spec.stage = Stage::prefill, spec.policy = scheduler::vllm(512, 16);
    spec.kv_blocks = 100, spec.block_tokens = 16;
    worker = std::make_unique<Worker>(spec, std::make_unique<MemoryEngine>(100, 16), sink, nullptr);
    for (Attempt a = 1; a < 10; ++a) {
      Start start;
      start.attempt = a, start.stage = Stage::prefill, start.tokens = {1, 2, 3}, start.most_tokens = 2;
      worker->start(start);
    }
    for (int i = 0; i < 5000 && worker->pulse().generated_tokens < 9; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    port = std::make_unique<KvPort>(Address{"127.0.0.1", 0}, kSecret);
    port->serve(worker.get());
  }
  KvJob job(Attempt attempt) const {
    return {attempt, {"127.0.0.1:" + std::to_string(port->port()), attempt, 3}, 1, true};
  }
  NoSink sink;
  std::unique_ptr<Worker> worker;
  std::unique_ptr<KvPort> port;
};

constexpr size_t kMemoryBlock = 16 * sizeof(Token);
const KvConnect kOverTcp = [](const std::string& address) { return connect_kv(address, kSecret); };

}  // namespace

TEST_CASE("a holder of KV that hangs holds up others' KV for a short time, and jobs of its own not each again") {
  Holder lively;
  // The kernel accepts for one that hangs, and nothing ever comes.
  int port = 0;
  const Socket hanging = listen_on({"127.0.0.1", 0}, port);
  Ledger ledger;
  KvReceiver receiver(kOverTcp, kMemoryBlock, ledger.hooks());
  const auto hung = [&](Attempt attempt) {
    return KvJob{attempt, {"127.0.0.1:" + std::to_string(port), attempt, 3}, 1, true};
  };
  for (Attempt a = 11; a < 15; ++a) receiver.add(hung(a));
  receiver.add(lively.job(1));
  // One handshake that is not answered takes 1 s; four jobs with three tries each of 2 s took 24.
  REQUIRE(ledger.wait(5, 4));
  CHECK(ledger.done == std::vector<std::string>{"11 lost", "12 lost", "13 lost", "14 lost", "1 came"});
}

TEST_CASE("connections to holders of KV that are no more do not pile up") {
  Ledger ledger;
  KvReceiver receiver(kOverTcp, kMemoryBlock, ledger.hooks());
  int before = 0;
  constexpr size_t kLives = 6;
  for (size_t i = 1; i <= kLives; ++i) {
    const Holder holder;
    receiver.add(holder.job(1));
    REQUIRE(ledger.wait(i, 5));
    if (i == 2) before = descriptors();
  }
  CHECK(ledger.done == std::vector<std::string>(kLives, "1 came"));
  // The last of the holders is gone here, and was not when `before` was counted.
  CHECK(descriptors() <= before);
}

TEST_CASE("setting the machine's time changes nothing: only what is written for people asks for it") {
  // Reads of the time of day, and the files that may: dates of logs, of HTTP and of "created".
  const std::vector<std::string> asks = {
      "system_clock", "high_resolution_clock", "gettimeofday", "CLOCK_REALTIME", "std::time(", "utc_clock",
      "file_clock",   "last_write_time"};
  int files = 0;
  for (const char* folder : {"/runtime", "/scheduler"})
    for (const auto& entry : std::filesystem::recursive_directory_iterator(std::string(DRYDOCK_SOURCE_DIR) + folder)) {
      if (entry.path().extension() != ".cpp" && entry.path().extension() != ".h") continue;
      ++files;
      const std::string text = core::read_file(entry.path(), 1 << 20), name = entry.path().filename();
      CAPTURE(name);
      size_t found = 0;
      for (const std::string& one : asks)
        for (size_t at = text.find(one); at != std::string::npos; at = text.find(one, at + 1)) ++found;
      // utc_now() and its seconds; Date, "created" of the server and of an answer; the date in a chat's system prompt.
      CHECK(found == (name == "request_log.cpp"     ? 2u
                      : name == "http_routes.cpp"   ? 3u
                      : name == "chat_template.cpp" ? 1u
                                                    : 0u));
    }
  CHECK(files > 100);
  CHECK(Clock::is_steady);
}

TEST_CASE("strangers are turned away: wrong secret, garbage, silence, half-open connections") {
  Dispatcher dispatcher{DispatcherSpec{}};
  WorkerPort port(dispatcher, {"127.0.0.1", 0}, kSecret, {});
  const Address address{"127.0.0.1", port.port()};
  const auto connect = [&] { return connect_to(address, std::chrono::seconds(2)); };
  CHECK_THROWS_WITH_AS(Channel::connected(connect(), "another secret, as long"), doctest::Contains("secret"),
                       core::Error);
  core::Random random(5);
  std::vector<Socket> open;
  for (int i = 0; i < 200 / tests::kLighter; ++i) {
    Socket s = connect();
    Bytes junk(static_cast<size_t>(random.integer(0, 300)));
    for (std::byte& b : junk) b = static_cast<std::byte>(random.integer(0, 255));
    try {
      s.write(junk, Clock::now() + std::chrono::seconds(1));
    } catch (const core::Error&) {  // refused before all was sent
    }
    if (i % 4 == 0) open.push_back(std::move(s));  // says nothing more
  }
  // One that knows the secret, and then says what no worker says.
  Channel bad = Channel::connected(connect(), kSecret);
  bad.send(FrameKind::kv_fetch, encode(KvFetch{}));
  CHECK_THROWS_AS(for (int i = 0; i < 100; ++i) bad.receive(std::chrono::seconds(2)), core::Error);
  // And one with a name that nobody has.
  Channel unknown = Channel::connected(connect(), kSecret);
  unknown.send(FrameKind::hello, encode(Hello{"decode/77", "", 10, 16, 1}));
  std::string told;
  for (int i = 0; i < 100 && told.empty(); ++i)
    if (const Frame frame = unknown.receive(std::chrono::seconds(2)); frame.kind == FrameKind::refusal)
      told = decode_text(frame.body);
  CHECK(told == "worker 'decode/77': the deployment has none of this name");
  CHECK_THROWS_AS(for (int i = 0; i < 100; ++i) unknown.receive(std::chrono::seconds(2)), core::Error);
  CHECK_FALSE(dispatcher.ready());
}

TEST_CASE("a worker that the deployment has no place for says so once, and asks again in growing pauses") {
  Dispatcher dispatcher{DispatcherSpec{}};
  WorkerPort port(dispatcher, {"127.0.0.1", 0}, kSecret, {});
  std::mutex mutex;
  std::vector<std::string> log;
  WorkerSpec spec;
  spec.name = "worker/7", spec.policy = scheduler::vllm(512, 16), spec.kv_blocks = 10, spec.block_tokens = 16;
  {
    RemoteWorker worker(
        spec, std::make_unique<MemoryEngine>(10, 16),
        RemoteWorkerOptions{{"127.0.0.1", port.port()}, kSecret, "127.0.0.1", 0, [&](const std::string& line) {
                              const std::scoped_lock lock(mutex);
                              log.push_back(line);
                            }});
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    CHECK_FALSE(worker.joined());
  }
  REQUIRE(log.size() == 1);
  CHECK(log[0].find("worker 'worker/7': the deployment has none of this name") != std::string::npos);
}

TEST_CASE("a connection that goes silent is a dead worker in under a second") {
  DispatcherSpec spec;
  Dispatcher dispatcher(spec);
  WorkerPort port(dispatcher, {"127.0.0.1", 0}, kSecret, {});
  // What it says last: a whole frame, or half of a long one.
  bool half = false;
  SUBCASE("between frames") {}
  SUBCASE("in the middle of a frame") { half = true; }
  Socket socket = connect_to({"127.0.0.1", port.port()}, std::chrono::seconds(2));
  Socket same(::dup(socket.fd()));
  Channel silent = Channel::connected(std::move(socket), kSecret);
  silent.send(FrameKind::hello, encode(Hello{"worker/0", "", 10, 16, 1}));
  const auto until = [&](bool wanted) {
    const Clock::time_point begin = Clock::now();
    while (dispatcher.ready() != wanted && Clock::now() < begin + std::chrono::seconds(5))
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  CHECK(until(true) < 5);
  const Bytes whole = frame(FrameKind::news, encode(std::vector<News>(1000)));
  if (half) same.write(std::span(whole).first(whole.size() / 2), Clock::now() + std::chrono::seconds(1));
  CHECK(until(false) < 1.0);
}
