#include "generators/dynamo_planner.h"

#include "core/error.h"
#include "generators/engine_figures.h"
#include "generators/kubernetes_parts.h"
#include "generators/planner_profile.h"
#include "generators/text.h"

namespace drydock::generators {

using core::Json;

bool wants_planner(const Request& request) {
  const models::Slo& slo = request.plan.slo;
  const bool targets = slo.ttft_ms && slo.tpot_ms;
  const std::string asked = choice_setting(request, "planner", targets ? "on" : "off", {"on", "off"});
  if (asked == "on" && !targets)
    throw core::Error("--set planner=on: the plan has no target of " + std::string(slo.ttft_ms ? "TPOT" : "TTFT") +
                      ", and the planner scales by TTFT and TPOT; plan with --ttft and --tpot");
  return asked == "on";
}

Json planner_config(const Request& request) {
  const models::Plan& plan = request.plan;
  const bool disagg = plan.mode == models::Mode::disagg;
  const models::Pool& decode = plan.pool(disagg ? models::Role::decode : models::Role::worker);
  Json out = {{"environment", "kubernetes"},
              {"backend", models::name(plan.backend)},
              {"mode", models::name(plan.mode)},
              {"model_name", served_name(request)},
              {"optimization_target", "sla"},
              {"ttft", plan.slo.ttft_ms.value()},
              {"itl", plan.slo.tpot_ms.value()},
              {"max_gpu_budget", count_setting(request, "max-gpus", plan.gpus(), plan.gpus(), 1'000'000)},
              {"min_endpoint", 1},
              {"decode_engine_num_gpu", decode.parallelism.gpus()}};
  if (disagg) out["prefill_engine_num_gpu"] = plan.pool(models::Role::prefill).parallelism.gpus();
  // Any mode but "none" makes the planner read the profile; with both loops on, the slow one plans by it.
  const bool profiled = request.planner_profile != nullptr;
  out["pre_deployment_sweeping_mode"] = profiled ? "rapid" : "none";
  out["enable_throughput_scaling"] = profiled;
  out["enable_load_scaling"] = true;
  out["throughput_adjustment_interval"] = 180;
  out["load_adjustment_interval"] = 5;
  if (profiled) out["profile_results_dir"] = kPlannerDataFolder;
  return out;
}

std::string planner_data_name(const Request& request) { return kube_name(request) + "-planner-profile"; }

Json planner_data(const Request& request) {
  return {{"apiVersion", "v1"},
          {"kind", "ConfigMap"},
          {"metadata", kube_metadata(request, planner_data_name(request), "planner")},
          {"data",
           {{"prefill_raw_data.json", json_text(planner_prefill_json(*request.planner_profile))},
            {"decode_raw_data.json", json_text(planner_decode_json(*request.planner_profile))}}}};
}

std::vector<OutputFile> planner_data_files(const Request& request) {
  const std::string folder = "dynamo/profiling_results/";
  return {{folder + "selected_prefill_interpolation/raw_data.npz", planner_prefill_npz(*request.planner_profile),
           "simulated TTFT by prompt length, for a planner outside Kubernetes"},
          {folder + "selected_decode_interpolation/raw_data.npz", planner_decode_npz(*request.planner_profile),
           "simulated ITL by KV use and context, for a planner outside Kubernetes"}};
}

}  // namespace drydock::generators
