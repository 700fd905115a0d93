// Runs what a plan says: everything in one process, one role of it, or a supervisor with a process for each role.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <random>

#include "cli/command.h"
#include "cli/load_options.h"
#include "cli/serve_parts.h"
#include "core/error.h"
#include "core/file.h"
#include "runtime/api_keys.h"
#include "runtime/channel.h"
#include "runtime/exit_codes.h"
#include "runtime/http_server.h"
#include "runtime/remote_worker.h"
#include "runtime/spawn.h"
#include "runtime/supervisor.h"
#include "runtime/worker_port.h"

namespace drydock::cli {
namespace {

namespace rt = runtime;

constexpr const char* kKeysName = "DRYDOCK_API_KEYS";
constexpr double kLook = 0.1;

rt::LogOptions log_options(const ServeOptions& o) {
  if (o.log_format != "json" && o.log_format != "text")
    throw core::Error("--log-format '" + o.log_format.substr(0, 40) + "': want json or text");
  return {rt::parse_log_level(o.log_level), o.log_format == "json"};
}

rt::HttpOptions http_options(const ServeOptions& o, const models::Plan& plan) {
  rt::HttpOptions out;
  out.host = o.host;
  out.port = static_cast<int>(parse_whole(o.port, "--port", 65535));
  if (!o.served_name.empty()) out.models.push_back(o.served_name);
  out.models.push_back(plan.model);
  if (!o.api_keys.empty())
    out.api_keys = rt::read_api_keys(o.api_keys);
  else if (const char* keys = std::getenv(kKeysName))
    out.api_keys = rt::split_api_keys(keys, kKeysName);
  out.version = DRYDOCK_VERSION;
  out.log = log_options(o);
  return out;
}

double drain_s(const ServeOptions& o) { return parse_span_us(o.drain_timeout, "--drain-timeout", true) * 1e-6; }

// What happens to workers, in the log.
class EventLog {
 public:
  explicit EventLog(const ServeOptions& o) : log_(std::make_shared<rt::RequestLog>(log_options(o))) {}
  std::function<void(const std::string&)> writer(const char* event) const {
    return [log = log_, event](const std::string& text) { log->write(rt::LogLevel::info, event, {{"what", text}}); };
  }

 private:
  std::shared_ptr<rt::RequestLog> log_;
};

// Serves until asked to stop, then finishes what is open as far as there is time.
int serve_http(const ServeOptions& o, const Serving& serving, rt::Dispatcher& dispatcher) {
  rt::HttpServer http(dispatcher, serving.codec(), http_options(o, serving.config().plan));
  try {
    http.start();
  } catch (const core::Error& error) {
    fmt::print(stderr, "drydock: {}\n", error.what());
    return rt::kExitNoAddress;
  }
  const std::string url = fmt::format("http://{}:{}", o.host, http.port());
  if (o.json)  // in a line, as the process goes on
    fmt::print(
        "{}\n",
        core::Json{{"schema", "drydock.serve"}, {"version", 1}, {"model", serving.config().plan.model}, {"url", url}}
            .dump());
  else
    fmt::print("serving {} on {}\n", serving.config().plan.model, url);
  std::fflush(stdout);
  while (!rt::wait_for_stop(3600)) continue;
  const double limit = drain_s(o);
  const auto begin = rt::Clock::now();
  const bool answered = http.drain(limit);
  const double left = limit - std::chrono::duration<double>(rt::Clock::now() - begin).count();
  const bool drained = dispatcher.drain(std::max(0.0, left));
  http.stop();
  return answered && drained ? rt::kExitStopped : rt::kExitCutOff;
}

int serve_all(const ServeOptions& o, Serving& serving) {
  http_options(o, serving.config().plan), drain_s(o);  // so that what is wrong with them comes before engines are made
  rt::hold_stop_signals();
  rt::Dispatcher dispatcher(serving.dispatcher());
  std::unique_ptr<rt::LocalFleet> fleet;
  try {
    fleet = std::make_unique<rt::LocalFleet>(dispatcher, serving.workers());
  } catch (const core::Error& error) {
    fmt::print(stderr, "drydock: {}\n", error.what());
    return rt::kExitEngineFailed;
  }
  return serve_http(o, serving, dispatcher);
}

int serve_router(const ServeOptions& o, Serving& serving) {
  const std::string secret = rt::secret_of(serving.config().secret_env);
  const rt::Address address = rt::parse_address(o.worker_listen, "--worker-listen");
  http_options(o, serving.config().plan), drain_s(o);
  rt::hold_stop_signals();
  const EventLog log(o);
  rt::Dispatcher dispatcher(serving.dispatcher());
  std::unique_ptr<rt::WorkerPort> port;
  try {
    port = std::make_unique<rt::WorkerPort>(dispatcher, address, secret, log.writer("worker"));
  } catch (const core::Error& error) {
    fmt::print(stderr, "drydock: {}\n", error.what());
    return rt::kExitNoAddress;
  }
  fmt::print("workers join {}\n", rt::text_of({address.host, port->port()}));
  return serve_http(o, serving, dispatcher);
}

int serve_worker(const ServeOptions& o, Serving& serving, const std::string& name) {
  const std::string secret = rt::secret_of(serving.config().secret_env);
  if (o.join.empty()) throw core::Error("--role worker: want --join with the router's host:port for workers");
  rt::RemoteWorkerOptions remote;
  remote.router = rt::parse_address(o.join, "--join");
  remote.secret = secret;
  remote.host = o.kv_host;
  rt::hold_stop_signals();
  remote.log = EventLog(o).writer("worker");
  std::vector<rt::LocalWorker> workers = serving.workers(name);
  std::unique_ptr<rt::Engine> engine;
  try {
    engine = workers.front().engine();
  } catch (const core::Error& error) {
    fmt::print(stderr, "drydock: {}\n", error.what());
    return rt::kExitEngineFailed;
  }
  rt::RemoteWorker worker(workers.front().spec, std::move(engine), remote);
  for (;;) {
    if (rt::wait_for_stop(kLook)) return rt::kExitStopped;
    if (const std::string failure = worker.failure(); !failure.empty()) {
      fmt::print(stderr, "drydock: {}: {}\n", name, failure);
      return rt::kExitEngineFailed;
    }
  }
}

std::string fresh_secret() {
  std::random_device device;
  std::string out;
  for (int i = 0; i < 8; ++i) out += fmt::format("{:08x}", device());
  return out;
}

// This process's arguments, for a child that is to have one role.
std::vector<std::string> child_arguments(const ServeOptions& o, const Context& context) {
  std::vector<std::string> out = {"serve", o.plan};
  const auto pass = [&](const char* flag, const std::string& value) {
    if (!value.empty()) out.insert(out.end(), {flag, value});
  };
  pass("--db", context.database), pass("--calibration", context.calibration);
  pass("--engine", o.engine), pass("--model-path", o.model_path), pass("--time-scale", o.time_scale);
  pass("--draft-model-path", o.draft_model_path), pass("--overlap", o.overlap);
  pass("--kv-gib", o.kv_gib), pass("--threads", o.threads), pass("--random-weights", o.seed_weights);
  pass("--host", o.host), pass("--port", o.port), pass("--api-keys", o.api_keys);
  pass("--log-level", o.log_level), pass("--log-format", o.log_format), pass("--drain-timeout", o.drain_timeout);
  pass("--queue", o.queue), pass("--migrations", o.migrations), pass("--local-prefill", o.local_prefill);
  pass("--router", o.router), pass("--served-model-name", o.served_name);
  if (o.json) out.emplace_back("--json");
  return out;
}

constexpr size_t kMostProcesses = 256;  // of workers on one machine

int serve_processes(const ServeOptions& o, const Context& context) {
  rt::SupervisorOptions supervisor;
  {
    // Only to check all flags and to know the workers: it goes before children start.
    Serving serving(o, context);
    http_options(o, serving.config().plan);
    size_t processes = 0;
    for (const rt::LocalWorker& w : serving.workers()) processes += static_cast<size_t>(w.ranks);
    if (processes > kMostProcesses)
      throw core::Error(
          fmt::format("--processes: {} workers of {} processes are more than the {} of one machine; the others join it "
                      "with --role",
                      serving.workers().size(), processes, kMostProcesses));
    supervisor.stop_limit_s = drain_s(o) + 5;
    supervisor.most_restarts = static_cast<int>(parse_whole(o.restarts, "--restarts", 1'000'000));
    const std::string name = serving.config().secret_env;
    supervisor.environment.push_back(name + "=" + (std::getenv(name.c_str()) ? rt::secret_of(name) : fresh_secret()));
    rt::Address joins = rt::parse_address(o.worker_listen, "--worker-listen");
    if (joins.port == 0) rt::listen_on(joins, joins.port);  // a free one, let go at once for the router to take
    const std::vector<std::string> common = child_arguments(o, context);
    const auto child = [&](const std::string& role, std::initializer_list<std::string> more) {
      rt::ChildSpec spec{role, common};
      spec.arguments.insert(spec.arguments.end(), more);
      supervisor.children.push_back(std::move(spec));
    };
    child("router", {"--role", "router", "--worker-listen", rt::text_of(joins)});
    int64_t gpu = o.first_gpu.empty() ? 0 : parse_whole(o.first_gpu, "--first-gpu", 1023);
    for (const rt::LocalWorker& w : serving.workers()) {
      child(w.spec.name, {"--role", "worker:" + w.spec.name, "--join", rt::text_of(joins), "--kv-host", o.kv_host});
      if (serving.config().engine == "cuda")
        supervisor.children.back().arguments.insert(supervisor.children.back().arguments.end(),
                                                    {"--first-gpu", std::to_string(gpu)});
      gpu += w.ranks;
    }
  }
  supervisor.program = rt::own_program();
  const bool json = o.log_format == "json";
  supervisor.log = [json](const std::string& line) {
    fmt::print(stderr, "{}\n", json ? core::Json{{"event", "process"}, {"what", line}}.dump() : line);
  };
  return rt::supervise(supervisor);
}

int serve(const ServeOptions& o, const Context& context) {
  rt::follow_supervisor();
  if (o.processes && !o.role.empty()) throw core::Error("--processes: goes without --role");
  if (o.processes) return serve_processes(o, context);
  Serving serving(o, context);
  if (o.role.empty()) return serve_all(o, serving);
  if (o.role == "router") return serve_router(o, serving);
  constexpr std::string_view kWorker = "worker:";
  if (o.role.starts_with(kWorker)) return serve_worker(o, serving, o.role.substr(kWorker.size()));
  throw core::Error("--role '" + o.role.substr(0, 60) +
                    "': want router, or worker: and a name, such as worker:decode/0");
}

}  // namespace

void add_serve(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("serve", "run a plan: an OpenAI-compatible server with its workers");
  const auto o = std::make_shared<ServeOptions>();
  command->add_option("plan", o->plan, "plan.json or runtime.json")->required()->type_name("FILE");
  command->add_option("--engine", o->engine, "emulated, cpu or cuda; else the file's, else emulated")
      ->type_name("NAME");
  command->add_option("--model-path", o->model_path, "model's folder, as Hugging Face has it")->type_name("DIR");
  command->add_option("--draft-model-path", o->draft_model_path, "engines cpu, cuda: folder of the model that drafts")
      ->type_name("DIR");
  command->add_option("--overlap", o->overlap, "engines cpu, cuda: off: no work beside a step's computing [on]")
      ->type_name("WORD");
  command->add_option("--time-scale", o->time_scale, "factor on emulated times; 0: no waiting [1]")->type_name("X");
  command->add_option("--kv-gib", o->kv_gib, "engine cpu: KV caches together [a quarter of the memory]; cuda: each")
      ->type_name("N");
  command->add_option("--threads", o->threads, "engine cpu: threads of a worker [the machine's]")->type_name("N");
  command->add_option("--random-weights", o->seed_weights, "engines cpu, cuda: made-up weights of this seed")
      ->type_name("N");
  command->add_option("--first-gpu", o->first_gpu, "engine cuda: GPU of the first worker, the others follow [0]")
      ->type_name("N");
  command->add_option("--host", o->host, "address of HTTP [127.0.0.1]")->type_name("ADDR");
  command->add_option("--port", o->port, "of HTTP; 0: any free one [8000]")->type_name("N");
  command->add_option("--api-keys", o->api_keys, "file of bearer keys, one a line [$DRYDOCK_API_KEYS]")
      ->type_name("FILE");
  command->add_option("--served-model-name", o->served_name, "name that requests give [the plan's]")->type_name("NAME");
  command->add_option("--router", o->router, "policy in place of the plan's")->type_name("NAME");
  command->add_option("--queue", o->queue, "requests without a first token; more: 429 [4096]")->type_name("N");
  command->add_option("--migrations", o->migrations, "moves of a request after failures [3]")->type_name("N");
  command->add_option("--local-prefill", o->local_prefill, "prompts below it stay with decode workers")->type_name("N");
  command->add_option("--drain-timeout", o->drain_timeout, "to finish answers when told to stop [30s]")->type_name("T");
  command->add_option("--log-level", o->log_level, "debug, info, warning, error or off [info]")->type_name("NAME");
  command->add_option("--log-format", o->log_format, "json or text [json]")->type_name("NAME");
  command->add_flag("--processes", o->processes, "router and workers as processes, begun anew when they end");
  command->add_option("--restarts", o->restarts, "of one process in a minute; more: give up [10]")->type_name("N");
  command->add_option("--role", o->role, "this process only: router, or worker:decode/0")->type_name("ROLE");
  command->add_option("--join", o->join, "role worker: the router's --worker-listen")->type_name("HOST:PORT");
  command->add_option("--worker-listen", o->worker_listen, "role router: where workers join [127.0.0.1:8100]")
      ->type_name("HOST:PORT");
  command->add_option("--kv-host", o->kv_host, "role worker: its address for other workers [127.0.0.1]")
      ->type_name("ADDR");
  add_common(*command, context);
  command->footer(
      "Examples:\n  drydock serve plan.json\n"
      "  curl http://127.0.0.1:8000/v1/completions --json '{\"prompt\": \"Hello\", \"max_tokens\": 20}'\n"
      "  drydock serve plan.json --processes --time-scale 0\n"
      "Exit codes: 0 stopped as asked, 2 bad input, 4 stopped with answers cut off, 5 address not free,\n"
      "6 engine failed, 7 a process ended too often. docs/serve.md has the rest.");
  command->callback([=, &context] {
    if (o->worker_listen.empty()) o->worker_listen = o->processes ? "127.0.0.1:0" : "127.0.0.1:8100";
    if (o->kv_host.empty()) o->kv_host = "127.0.0.1";
    o->json = context.json;
    context.exit_code = serve(*o, context);
  });
}

}  // namespace drydock::cli
