#include "generators/drydock_target.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "generators/launch_scripts.h"
#include "generators/runtime_config.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr std::string_view kFolder = "drydock/", kConfigPath = "/etc/drydock/runtime.json";

constexpr char kSecretLine[] = ": \"${DRYDOCK_SECRET:?a secret that router and workers share}\"\n";

EngineKind engine_kind(const Request& request) {
  const std::string name = request.set("engine", "emulated");
  if (name == "emulated") return EngineKind::emulated;
  if (name == "cpu") return EngineKind::cpu;
  if (name == "cuda") return EngineKind::cuda;
  throw core::Error("--set engine='" + name.substr(0, 40) + "': want emulated, cpu or cuda");
}

// systemd has its own quoting and its own variables: nothing but a plain path is let in.
std::string binary_path(const Request& request) {
  const std::string path = request.set("binary", "/usr/bin/drydock");
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("/._+-").find(c) != std::string_view::npos;
  };
  if (!path.starts_with('/') || !std::all_of(path.begin(), path.end(), plain))
    throw core::Error("--set binary='" + path.substr(0, 60) + "': want an absolute path of letters, digits and /._+-");
  return path;
}

// Compose replaces $NAME in every value; "$$" is a dollar.
Json compose_text(std::string text) {
  for (size_t at = 0; (at = text.find('$', at)) != std::string::npos; at += 2) text.insert(at, 1, '$');
  return text;
}

Json compose_service(const Request& request, const Json& command) {
  return {{"image", compose_text(request.set("image", "drydock:latest"))},
          {"command", command},
          {"volumes", Json::array({"./runtime.json:" + std::string(kConfigPath) + ":ro"})},
          {"environment", {{"DRYDOCK_SECRET", "${DRYDOCK_SECRET:?a secret that router and workers share}"}}},
          {"restart", "on-failure"}};
}

OutputFile compose_file(const Request& request) {
  const bool gpus = engine_kind(request) == EngineKind::cuda;
  Json router = compose_service(
      request, {"serve", kConfigPath, "--role", "router", "--host", "0.0.0.0", "--port", std::to_string(kRouterPort),
                "--worker-listen", "0.0.0.0:" + std::to_string(kJoinPort)});
  router["ports"] = Json::array({std::to_string(kRouterPort) + ":" + std::to_string(kRouterPort)});
  Json services = {{"router", router}};
  int first_gpu = 0;
  for (const models::Pool& pool : request.plan.pools)
    for (int i = 0; i < pool.replicas; ++i) {
      const std::string role(models::name(pool.role)), index = std::to_string(i);
      Json worker = compose_service(request, {"serve", kConfigPath, "--role", "worker:" + role + "/" + index, "--join",
                                              "router:" + std::to_string(kJoinPort), "--kv-host", role + "-" + index});
      worker["depends_on"] = Json::array({"router"});
      if (gpus) {
        Json ids = Json::array();
        for (int g = 0; g < pool.parallelism.gpus(); ++g) ids.push_back(std::to_string(first_gpu++));
        worker["deploy"]["resources"]["reservations"]["devices"] =
            Json::array({{{"driver", "nvidia"}, {"device_ids", ids}, {"capabilities", Json::array({"gpu"})}}});
      }
      services[role + "-" + index] = worker;
    }
  return {std::string(kFolder) + "compose.yaml",
          header(request, "# ") +
              yaml(Json{{"name", "drydock-" + plan_hash(request.plan).substr(0, 8)}, {"services", services}}),
          "router and workers as containers of one machine: DRYDOCK_SECRET=... docker compose up"};
}

std::string systemd_unit(const Request& request, const std::string& description, const std::string& body) {
  return header(request, "# ") + "[Unit]\nDescription=" + description +
         "\nAfter=network-online.target\nWants=network-online.target\nPartOf=drydock.target\n" + body;
}

std::string systemd_service(const std::string& variables, const std::string& command) {
  return "\n[Service]\nEnvironment=" + variables + "\nEnvironmentFile=-/etc/drydock/environment\nExecStart=" + command +
         "\nRestart=on-failure\nRestartSec=1\nTimeoutStopSec=120\nDynamicUser=yes\nNoNewPrivileges=yes\nProtectSystem="
         "strict\nProtectHome=yes\n";
}

void add_units(const Request& request, std::vector<OutputFile>& out) {
  const std::string folder = std::string(kFolder) + "systemd/", program = binary_path(request), config(kConfigPath);
  const std::string join = std::to_string(kJoinPort);
  std::string wants = "drydock-router.service";
  out.push_back({folder + "drydock-router.service",
                 systemd_unit(request, "Drydock's router",
                              systemd_service("DRYDOCK_LISTEN=127.0.0.1:" + join,
                                              program + " serve " + config + " --role router --host 0.0.0.0 --port " +
                                                  std::to_string(kRouterPort) + " --worker-listen ${DRYDOCK_LISTEN}")),
                 "unit of the router; /etc/drydock/environment holds DRYDOCK_SECRET and what else differs here"});
  for (const models::Pool& pool : request.plan.pools) {
    const std::string role(models::name(pool.role));
    out.push_back({folder + "drydock-" + role + "@.service",
                   systemd_unit(request, "Drydock's worker " + role + "/%i",
                                systemd_service("DRYDOCK_ROUTER=127.0.0.1:" + join + " DRYDOCK_KV_HOST=127.0.0.1",
                                                program + " serve " + config + " --role worker:" + role +
                                                    "/%i --join ${DRYDOCK_ROUTER} --kv-host ${DRYDOCK_KV_HOST}")),
                   "unit of a worker of pool " + role + "; DRYDOCK_ROUTER is where it joins"});
    for (int i = 0; i < pool.replicas; ++i) wants += " drydock-" + role + "@" + std::to_string(i) + ".service";
  }
  out.push_back({folder + "drydock.target",
                 header(request, "# ") + "[Unit]\nDescription=Drydock, all of a plan on one machine\nWants=" + wants +
                     "\n\n[Install]\nWantedBy=multi-user.target\n",
                 "all units of the plan on one machine: systemctl start drydock.target"});
}

std::vector<OutputFile> drydock_files(const Request& request) {
  const std::string folder(kFolder), port = std::to_string(kRouterPort), join = std::to_string(kJoinPort);
  std::vector<OutputFile> out = {{folder + "runtime.json", runtime_config(request.plan, engine_kind(request)),
                                  "configuration of the bundled runtime"}};
  out.push_back({folder + "run.sh",
                 script_head(request, {"Router and all workers in one process."}) +
                     "exec \"${DRYDOCK:-drydock}\" serve runtime.json --host 0.0.0.0 --port \"${PORT:-" + port +
                     "}\" \"$@\"\n",
                 "serves the whole plan from one process", true});
  out.push_back({folder + "router.sh",
                 script_head(request, {"The router; workers join it at port " + join + "."}) + kSecretLine +
                     "exec \"${DRYDOCK:-drydock}\" serve runtime.json --role router --host 0.0.0.0 --port \"${PORT:-" +
                     port + "}\" --worker-listen \"${LISTEN:-0.0.0.0:" + join + "}\" \"$@\"\n",
                 "the router alone", true});
  for (const models::Pool& pool : request.plan.pools) {
    const std::string role(models::name(pool.role));
    out.push_back(
        {folder + role + ".sh",
         script_head(request, {"Pool '" + role + "': " + pool_summary(request, pool) + ".",
                               "usage: REPLICA=0 ROUTER=host:" + join + " KV_HOST=address ./" + role + ".sh"}) +
             kSecretLine + "exec \"${DRYDOCK:-drydock}\" serve runtime.json --role \"worker:" + role +
             "/${REPLICA:-0}\" --join \"${ROUTER:-127.0.0.1:" + join +
             "}\" --kv-host \"${KV_HOST:-127.0.0.1}\" \"$@\"\n",
         "one worker of pool " + role, true});
  }
  out.push_back(compose_file(request));
  add_units(request, out);
  return out;
}

constexpr std::array<Setting, 3> kDrydockSettings = {{
    {"engine", "what does the steps: emulated, cpu or cuda", "emulated"},
    {"image", "container image of drydock", "drydock:latest"},
    {"binary", "drydock as systemd starts it", "/usr/bin/drydock"},
}};

}  // namespace

const Target kDrydock = {"drydock", "the bundled runtime: configuration, compose file, systemd units, scripts",
                         kDrydockSettings, drydock_files};

}  // namespace drydock::generators
