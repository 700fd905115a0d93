#include "generators/sweep_jobs.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "core/text.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr Setting kSweepSettings[] = {
    {"cpus", "cores of a shard", "4"},
    {"memory", "memory of a shard", "4Gi"},
    {"program", "drydock, as a shard calls it", "drydock"},
    {"partition", "slurm: partition", ""},
    {"account", "slurm: account", ""},
    {"time", "slurm: time limit of a shard", "04:00:00"},
    {"image", "k8s: image with drydock in it", "drydock:latest"},
    {"namespace", "k8s: namespace", "default"},
    {"claim", "k8s: volume claim for the results that is there already; empty: one is written", ""},
    {"storage-class", "k8s: of the claim that is written, which needs ReadWriteMany", ""},
    {"parallelism", "k8s: shards at a time; 0: all", "0"},
};

std::string sweep_setting(const SweepJobs& jobs, std::string_view key) {
  if (const auto found = jobs.settings.find(std::string(key)); found != jobs.settings.end()) return found->second;
  for (const Setting& setting : kSweepSettings)
    if (setting.key == key) return std::string(setting.otherwise);
  return "";
}

core::Error bad_sweep_setting(std::string_view key, const std::string& value, std::string_view want) {
  return core::Error("--set " + std::string(key) + "='" + value.substr(0, 60) + "': want " + std::string(want));
}

int64_t sweep_whole(const SweepJobs& jobs, std::string_view key, int64_t least, int64_t most) {
  const std::string text = sweep_setting(jobs, key);
  const bool digits = !text.empty() && text.size() < 10 &&
                      std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  const int64_t value = digits ? std::stoll(text) : -1;
  if (value < least || value > most)
    throw bad_sweep_setting(key, text, "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  return value;
}

// A line of #SBATCH has no quotes, so that a value must be one plain word.
std::string sweep_word(const SweepJobs& jobs, std::string_view key) {
  std::string text = sweep_setting(jobs, key);
  for (const char c : text)
    if (!std::isalnum(static_cast<unsigned char>(c)) && std::string_view("_-.,:+").find(c) == std::string_view::npos)
      throw bad_sweep_setting(key, text, "letters, digits and _-.,:+");
  return text;
}

// "4Gi", "512Mi", "4G"
std::string sweep_memory(const SweepJobs& jobs) {
  const std::string text = sweep_setting(jobs, "memory");
  const size_t digits = text.find_first_not_of("0123456789");
  const std::string unit = digits == std::string::npos ? "" : text.substr(digits);
  if (digits == 0 || text.empty() || text.size() > 12 || (unit != "Gi" && unit != "Mi" && unit != "G" && unit != "M"))
    throw bad_sweep_setting("memory", text, "a size such as 4Gi or 512Mi");
  return text;
}

void check_sweep_jobs(const SweepJobs& jobs) {
  std::vector<std::string> known;
  for (const Setting& setting : kSweepSettings) known.emplace_back(setting.key);
  for (const auto& [key, value] : jobs.settings)
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw core::Error("--set " + key.substr(0, 60) + ": not known for a sweep's jobs" + core::suggestion(key, known));
  if (jobs.shards < 1 || jobs.shards > kMostSweepShards)
    throw core::Error("--shards " + std::to_string(jobs.shards) + ": want 1 to " + std::to_string(kMostSweepShards));
}

std::string sweep_sbatch_head(const SweepJobs& jobs, const std::string& suffix, const std::string& output) {
  std::string out = "#!/bin/bash\n# Written by drydock " + jobs.version +
                    ".\n#SBATCH --job-name=" + safe_name(jobs.name, 40) + suffix + "\n#SBATCH --output=logs/" + output +
                    ".out\n#SBATCH --ntasks=1\n";
  for (const char* key : {"partition", "account", "time"})
    if (const std::string value = sweep_word(jobs, key); !value.empty())
      out += std::string("#SBATCH --") + key + "=" + value + "\n";
  std::string memory = sweep_memory(jobs);
  if (memory.back() == 'i') memory.pop_back();  // Slurm's units are the binary ones
  return out + "#SBATCH --mem=" + memory + "\n";
}

// Kubernetes replaces $(NAME) in a command, within a shell's quotes too; $$( is its way to write $(.
std::string kubernetes_word(const std::string& text) {
  std::string out;
  for (const char c : shell_word(text)) out += c == '(' && out.ends_with('$') ? std::string("$(") : std::string(1, c);
  return out;
}

// Slurm copies the script elsewhere, so that it finds its folder by where it was submitted from.
constexpr const char* kSweepSubmitted = "set -euo pipefail\ncd \"$SLURM_SUBMIT_DIR\"\n";

Json sweep_metadata(const SweepJobs& jobs, const std::string& name) {
  return {{"name", name},
          {"namespace", safe_name(sweep_setting(jobs, "namespace"))},
          {"labels", {{"app.kubernetes.io/name", "drydock-sweep"}, {"app.kubernetes.io/instance", name}}}};
}

std::string sweep_job_name(const SweepJobs& jobs) { return safe_name(jobs.name, 40); }

std::string sweep_claim_name(const SweepJobs& jobs) {
  const std::string given = sweep_setting(jobs, "claim");
  return given.empty() ? sweep_job_name(jobs) + "-results" : safe_name(given);
}

Json sweep_pod(const SweepJobs& jobs, const std::string& script) {
  const Json resources = {{"cpu", std::to_string(sweep_whole(jobs, "cpus", 1, 1024))}, {"memory", sweep_memory(jobs)}};
  Json container = {
      {"name", "sweep"},
      {"image", sweep_setting(jobs, "image")},
      {"command", {"/bin/sh", "-c", script}},
      {"resources", {{"requests", resources}, {"limits", {{"memory", resources["memory"]}}}}},
      {"securityContext",
       {{"allowPrivilegeEscalation", false}, {"readOnlyRootFilesystem", true}, {"capabilities", {{"drop", {"ALL"}}}}}},
      {"volumeMounts",
       {{{"name", "sweep"}, {"mountPath", "/sweep"}, {"readOnly", true}},
        {{"name", "results"}, {"mountPath", "/results"}}}}};
  return {{"spec",
           {{"restartPolicy", "OnFailure"},
            {"containers", Json::array({container})},
            {"volumes",
             {{{"name", "sweep"}, {"configMap", {{"name", sweep_job_name(jobs)}}}},
              {{"name", "results"}, {"persistentVolumeClaim", {{"claimName", sweep_claim_name(jobs)}}}}}}}}};
}

Json sweep_claim(const SweepJobs& jobs) {
  Json spec = {{"accessModes", {"ReadWriteMany"}}, {"resources", {{"requests", {{"storage", "1Gi"}}}}}};
  if (const std::string storage = sweep_setting(jobs, "storage-class"); !storage.empty())
    spec["storageClassName"] = safe_name(storage);
  return {{"apiVersion", "v1"},
          {"kind", "PersistentVolumeClaim"},
          {"metadata", sweep_metadata(jobs, sweep_claim_name(jobs))},
          {"spec", spec}};
}

}  // namespace

std::span<const Setting> sweep_job_settings() { return kSweepSettings; }

std::vector<OutputFile> slurm_sweep(const SweepJobs& jobs) {
  check_sweep_jobs(jobs);
  const std::string n = std::to_string(jobs.shards), cpus = std::to_string(sweep_whole(jobs, "cpus", 1, 1024));
  const std::string program = shell_word(sweep_setting(jobs, "program"));
  // The count is written out: a few indices that are submitted again would come with a SLURM_ARRAY_TASK_COUNT of
  // theirs.
  std::string array = sweep_sbatch_head(jobs, "", "%x-%A-%a") + "#SBATCH --array=1-" + n +
                      "\n#SBATCH --cpus-per-task=" + cpus + "\n#SBATCH --requeue\n" + kSweepSubmitted + "exec srun " +
                      program + " sweep sweep.yaml --out results --shard \"$SLURM_ARRAY_TASK_ID/" + n +
                      "\" \\\n  --threads \"$SLURM_CPUS_PER_TASK\" --resume\n";
  std::string merge =
      sweep_sbatch_head(jobs, "-merge", "%x-%j") + kSweepSubmitted + "exec " + program + " sweep --merge results\n";
  std::string submit =
      "#!/bin/sh\n# Submits all shards, and the merge for when the last of them is done.\nset -eu\ncd \"$(dirname "
      "\"$0\")\"\n"
      "mkdir -p logs results\njob=$(sbatch --parsable sweep.sbatch)\n"
      "sbatch --dependency=\"afterok:${job%%;*}\" merge.sbatch\n";
  return {{"slurm/sweep.yaml", jobs.yaml, "the sweep", false},
          {"slurm/sweep.sbatch", std::move(array), "array of " + n + " shards", false},
          {"slurm/merge.sbatch", std::move(merge), "merge of their results", false},
          {"slurm/submit.sh", std::move(submit), "submits both", true}};
}

std::vector<OutputFile> k8s_sweep(const SweepJobs& jobs) {
  check_sweep_jobs(jobs);
  const std::string program = kubernetes_word(sweep_setting(jobs, "program"));
  const int64_t parallel = sweep_whole(jobs, "parallelism", 0, kMostSweepShards);
  constexpr int kRetriesOfAShard = 3;
  const std::string shard =
      "exec " + program + " sweep /sweep/sweep.yaml --out /results --shard $((JOB_COMPLETION_INDEX + 1))/" +
      std::to_string(jobs.shards) + " --threads " + std::to_string(sweep_whole(jobs, "cpus", 1, 1024)) + " --resume";
  const Json config = {{"apiVersion", "v1"},
                       {"kind", "ConfigMap"},
                       {"metadata", sweep_metadata(jobs, sweep_job_name(jobs))},
                       {"data", {{"sweep.yaml", jobs.yaml}}}};
  const Json job = {{"apiVersion", "batch/v1"},
                    {"kind", "Job"},
                    {"metadata", sweep_metadata(jobs, sweep_job_name(jobs))},
                    {"spec",
                     {{"completionMode", "Indexed"},
                      {"completions", jobs.shards},
                      {"parallelism", parallel == 0 ? jobs.shards : std::min(parallel, jobs.shards)},
                      {"backoffLimit", kRetriesOfAShard * jobs.shards},
                      {"template", sweep_pod(jobs, shard)}}}};
  const Json merge = {{"apiVersion", "batch/v1"},
                      {"kind", "Job"},
                      {"metadata", sweep_metadata(jobs, sweep_job_name(jobs) + "-merge")},
                      {"spec",
                       {{"backoffLimit", kRetriesOfAShard},
                        {"template", sweep_pod(jobs, "exec " + program + " sweep --merge /results")}}}};
  std::vector<Json> first{config};
  if (sweep_setting(jobs, "claim").empty()) first.push_back(sweep_claim(jobs));
  first.push_back(job);
  const std::string head = "# Written by drydock " + jobs.version + ".\n";
  return {{"k8s/sweep.yaml", head + yaml(first), "the sweep and its Indexed Job; kubectl apply -f", false},
          {"k8s/merge.yaml", head + yaml(merge), "merge of the results, once that Job is complete", false}};
}

}  // namespace drydock::generators
