#include "generators/grafana_target.h"

#include <array>

#include "generators/burn_rate.h"
#include "generators/kubernetes_parts.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr std::array<Setting, 2> kGrafanaSettings = {{
    {"metrics", "whose metrics come first: drydock, vllm, sglang, trtllm or dynamo", "those of the plan's backend"},
    {"served-name", "the model's name in the metrics", "the plan's"},
}};

constexpr int kColumns = 24, kPanelHeight = 8;  // of Grafana's grid
constexpr int kSchemaVersion = 39;              // of Grafana 11's dashboards

// Panels laid out left to right, three a row.
class Board {
 public:
  void row(const std::string& title) {
    end_line();
    Json panel = {{"id", next_id_++}, {"type", "row"}, {"title", title}, {"collapsed", false}};
    panel["gridPos"] = {{"x", 0}, {"y", y_}, {"w", kColumns}, {"h", 1}};
    panels_.push_back(std::move(panel));
    y_ += 1;
  }
  void add(Json panel) {
    constexpr int kWidth = kColumns / 3;
    panel["id"] = next_id_++;
    panel["gridPos"] = {{"x", x_}, {"y", y_}, {"w", kWidth}, {"h", kPanelHeight}};
    panels_.push_back(std::move(panel));
    x_ += kWidth;
    if (x_ >= kColumns) end_line();
  }
  Json panels() const { return panels_; }

 private:
  void end_line() {
    if (x_ > 0) y_ += kPanelHeight;
    x_ = 0;
  }
  Json panels_ = Json::array();
  int x_ = 0, y_ = 0, next_id_ = 1;
};

Json data_source() { return {{"type", "prometheus"}, {"uid", "${datasource}"}}; }

struct Query {
  std::string expression, legend;
};

Json series_panel(const std::string& title, const std::string& unit, const std::vector<Query>& queries,
                  const std::string& what = "") {
  Json targets = Json::array();
  for (size_t i = 0; i < queries.size(); ++i)
    targets.push_back({{"refId", std::string(1, static_cast<char>('A' + i))},
                       {"datasource", data_source()},
                       {"expr", queries[i].expression},
                       {"legendFormat", queries[i].legend}});
  return {
      {"type", "timeseries"},
      {"title", title},
      {"description", what},
      {"datasource", data_source()},
      {"targets", std::move(targets)},
      {"fieldConfig", {{"defaults", {{"unit", unit}, {"min", 0}}}, {"overrides", Json::array()}}},
      {"options", {{"legend", {{"displayMode", "list"}, {"placement", "bottom"}}}, {"tooltip", {{"mode", "multi"}}}}}};
}

// A red line at the plan's target.
void draw_target(Json& panel, double seconds) {
  Json& defaults = panel["fieldConfig"]["defaults"];
  defaults["custom"] = {{"thresholdsStyle", {{"mode", "line"}}}};
  defaults["thresholds"] = {{"mode", "absolute"},
                            {"steps", Json::array({Json{{"color", "green"}, {"value", nullptr}},
                                                   Json{{"color", "red"}, {"value", seconds}}})}};
}

std::string of_model(const MetricNames& names, const std::string& more = "") {
  return "{" + std::string(names.model) + "=~\"$model\"" + more + "}";
}

std::string quantile_query(std::string_view metric, const MetricNames& names, double quantile) {
  return "histogram_quantile(" + metric_number(quantile) + ", sum by (le) (rate(" + std::string(metric) + "_bucket" +
         of_model(names) + "[$__rate_interval])))";
}

Json latency_panel(const Request& request, const MetricNames& names, const std::string& title, std::string_view metric,
                   const std::optional<double>& target_ms) {
  const double tail = request.plan.slo.percentile.value_or(95);
  Json panel =
      series_panel(title, "s",
                   {{quantile_query(metric, names, 0.5), "p50"},
                    {quantile_query(metric, names, tail / 100), "p" + metric_number(tail)},
                    {quantile_query(metric, names, 0.999), "p99.9"},
                    {"sum(rate(" + std::string(metric) + "_sum" + of_model(names) + "[$__rate_interval])) / sum(rate(" +
                         std::string(metric) + "_count" + of_model(names) + "[$__rate_interval]))",
                     "mean"}},
                   target_ms ? "The line is the plan's target." : "The plan has no target for it.");
  if (target_ms) draw_target(panel, *target_ms / 1000);
  return panel;
}

void add_users(Board& board, const Request& request, const MetricNames& names) {
  const models::Slo& slo = request.plan.slo;
  board.row("What users feel: " + std::string(names.title));
  board.add(latency_panel(request, names, "Time to first token", names.ttft, slo.ttft_ms));
  board.add(latency_panel(request, names, "Time between tokens", names.itl, slo.tpot_ms));
  board.add(latency_panel(request, names, "Time of a request", names.duration, slo.request_latency_ms));
  Json rate = series_panel(
      "Answers", "reqps",
      {{"sum(rate(" + std::string(names.duration) + "_count" + of_model(names) + "[$__rate_interval]))", "answers"}},
      "The line is what the plan was made for or predicted to serve.");
  if (request.plan.workload.rate)
    draw_target(rate, *request.plan.workload.rate);
  else if (request.plan.prediction)
    draw_target(rate, request.plan.prediction->requests_per_s.value);
  board.add(std::move(rate));
}

int64_t planned_batch(const models::Plan& plan) {
  int64_t batch = 0;
  for (const models::Pool& pool : plan.pools)
    if (pool.role != models::Role::prefill) batch += pool.replicas * pool.max_batch;
  return batch;
}

void add_load(Board& board, const Request& request, const MetricNames& names) {
  const auto gauge = [&](std::string_view metric, const char* title, const char* unit, const char* how) {
    return series_panel(title, unit, {{std::string(how) + "(" + std::string(metric) + of_model(names) + ")", title}});
  };
  if (!names.running.empty()) {
    Json running = gauge(names.running, "Running requests", "short", "sum");
    draw_target(running, static_cast<double>(planned_batch(request.plan)));
    running["description"] = "The line is the plan's batch over all workers.";
    board.add(std::move(running));
  }
  if (!names.waiting.empty()) board.add(gauge(names.waiting, "Waiting requests", "short", "sum"));
  if (!names.kv_usage.empty())
    board.add(gauge(names.kv_usage, "KV cache in use, fullest worker", "percentunit", "max"));
}

// The runtime's own counters, worker by worker.
void add_workers(Board& board, const MetricNames& names) {
  const std::string filter = of_model(names, ", role=~\"$role\", worker=~\"$worker\"");
  const auto rate = [&](const char* metric, const char* title, const char* unit) {
    board.add(series_panel(
        title, unit,
        {{"sum by (worker) (rate(" + std::string(metric) + filter + "[$__rate_interval]))", "{{worker}}"}}));
  };
  const auto level = [&](const char* metric, const char* title, const char* unit) {
    board.add(series_panel(title, unit, {{std::string(metric) + filter, "{{worker}}"}}));
  };
  board.row("Workers of the bundled runtime");
  level("drydock_requests_running", "Running, by worker", "short");
  level("drydock_requests_waiting", "Waiting, by worker", "short");
  level("drydock_kv_cache_usage_ratio", "KV cache in use, by worker", "percentunit");
  rate("drydock_preemptions_total", "Preemptions a second", "ops");
  rate("drydock_prefix_cache_hit_tokens_total", "Prompt tokens from the prefix cache a second", "short");
  board.add(series_panel(  // counted by the router, for no worker of its own
      "KV transfers a second", "ops",
      {{"sum(rate(drydock_kv_transfers_total" + of_model(names) + "[$__rate_interval]))", "sent"},
       {"sum(rate(drydock_kv_transfers_failed_total" + of_model(names) + "[$__rate_interval]))", "failed"}}));
  rate("drydock_worker_restarts_total", "Restarts a second", "ops");
}

Json query_variable(const std::string& name, const std::string& label, const std::string& query) {
  return {{"name", name},
          {"label", label},
          {"type", "query"},
          {"datasource", data_source()},
          {"query", {{"query", query}, {"refId", name}}},
          {"refresh", 2},
          {"includeAll", true},
          {"multi", true},
          {"allValue", ".*"},
          {"current", {{"text", Json::array({"All"})}, {"value", Json::array({"$__all"})}}}};
}

Json variables(const MetricNames& names) {
  const std::string label(names.model);
  Json out = Json::array(
      {Json{{"name", "datasource"}, {"label", "Data source"}, {"type", "datasource"}, {"query", "prometheus"}},
       query_variable("model", "Model", "label_values(" + std::string(names.ttft) + "_count, " + label + ")")});
  if (names.key != "drydock") return out;  // other servers have no such labels
  out.push_back(query_variable("role", "Role", "label_values(drydock_requests_waiting, role)"));
  out.push_back(query_variable("worker", "Worker", "label_values(drydock_requests_waiting, worker)"));
  return out;
}

std::vector<OutputFile> grafana_files(const Request& request) {
  const MetricNames& names = metrics_of(request);
  Board board;
  add_users(board, request, names);
  add_load(board, request, names);
  if (names.key == "drydock") add_workers(board, names);
  for (const MetricNames& other : metric_names())  // whoever stands in front of the engines
    if (other.key == "dynamo" && names.key != "dynamo" && names.key != "drydock") add_users(board, request, other);
  const Json dashboard = {
      {"uid", "drydock-" + plan_hash(request.plan)},
      {"title", "Drydock: " + request.plan.model},
      {"description", "drydock " + comment_text(request.version) + ", plan " + plan_hash(request.plan)},
      {"tags", Json::array({"drydock", "llm"})},
      {"schemaVersion", kSchemaVersion},
      {"version", 1},
      {"editable", true},
      {"refresh", "30s"},
      {"time", {{"from", "now-3h"}, {"to", "now"}}},
      {"templating", {{"list", variables(names)}}},
      {"panels", board.panels()}};
  return {{"grafana/dashboard.json", json_text(dashboard), "dashboard to import into Grafana 10 and later"}};
}

}  // namespace

const Target kGrafana = {"grafana", "Grafana dashboard with the plan's targets as lines", kGrafanaSettings,
                         grafana_files};

}  // namespace drydock::generators
