#include "profiler/worker_messages.h"

#include "core/json.h"

namespace drydock::profiler {
namespace {

std::string line_of(const core::Json& json) {
  return json.dump(-1, ' ', false, core::Json::error_handler_t::replace) + "\n";
}

Identity identity_of(const core::Json& j) {
  Identity out;
  out.gpu = j.at("gpu");
  out.driver = j.at("driver");
  out.clocks = j.at("clocks");
  out.version = j.at("version");
  out.units = j.at("units");
  out.memory_bytes = j.at("memory_bytes");
  out.mig = j.at("mig");
  out.ecc = j.at("ecc");
  out.other_processes = j.at("other_processes");
  out.power_w = j.at("power_w");
  out.celsius = j.at("celsius");
  out.warnings = j.at("warnings").get<std::vector<std::string>>();
  return out;
}

Measured measured_of(const core::Json& j) {
  Measured out;
  Summary& s = out.summary;
  s.median = j.at("median");
  s.spread = j.at("spread");
  s.interval = {j.at("low"), j.at("high"), j.at("coverage")};
  s.samples = j.at("samples");
  s.outliers = j.at("outliers");
  s.drifts = j.at("drifts");
  s.bimodal = j.at("bimodal");
  out.throttled = j.at("throttled");
  out.seconds = j.at("seconds");
  out.kernel = j.at("kernel");
  if (j.contains("joules")) out.joules = j.at("joules").get<double>();
  return out;
}

std::vector<KernelPart> parts_in(const core::Json& j) {
  std::vector<KernelPart> out;
  for (const core::Json& part : j.at("parts")) out.push_back({part.at("name"), part.at("share")});
  return out;
}

}  // namespace

std::string hello_message(const Identity& i) {
  return line_of({{"status", "hello"},
                  {"gpu", i.gpu},
                  {"driver", i.driver},
                  {"clocks", i.clocks},
                  {"version", i.version},
                  {"units", i.units},
                  {"memory_bytes", i.memory_bytes},
                  {"mig", i.mig},
                  {"ecc", i.ecc},
                  {"other_processes", i.other_processes},
                  {"power_w", i.power_w},
                  {"celsius", i.celsius},
                  {"warnings", i.warnings}});
}

std::string measured_message(const Measured& m) {
  const Summary& s = m.summary;
  core::Json json = {{"status", "measured"},  {"median", s.median},       {"spread", s.spread},
                     {"low", s.interval.low}, {"high", s.interval.high},  {"coverage", s.interval.coverage},
                     {"samples", s.samples},  {"outliers", s.outliers},   {"drifts", s.drifts},
                     {"bimodal", s.bimodal},  {"throttled", m.throttled}, {"seconds", m.seconds},
                     {"kernel", m.kernel}};
  if (m.joules) json["joules"] = *m.joules;
  return line_of(json);
}

std::string parts_message(const std::vector<KernelPart>& parts) {
  core::Json list = core::Json::array();
  for (const KernelPart& part : parts) list.push_back({{"name", part.name}, {"share", part.share}});
  return line_of({{"status", "parts"}, {"parts", list}});
}

std::string reason_message(const char* status, const std::string& reason) {
  return line_of({{"status", status}, {"reason", reason}});
}

Message parse_message(const std::string& line) {
  try {
    const core::Json json = core::parse_json(line, "worker");
    Message out;
    out.status = json.at("status");
    if (json.contains("reason")) out.reason = json.at("reason");
    if (out.status == "hello") out.identity = identity_of(json);
    if (out.status == "measured") out.measured = measured_of(json);
    if (out.status == "parts") out.parts = parts_in(json);
    return out;
  } catch (const nlohmann::json::exception&) {
    throw core::Error("the measuring process gave an answer that can't be read");
  }
}

}  // namespace drydock::profiler
