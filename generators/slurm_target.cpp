#include "generators/slurm_target.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "generators/drydock_target.h"
#include "generators/engine_files.h"
#include "generators/launch_scripts.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

constexpr std::string_view kSlurmFolder = "slurm";

// Slurm reads directives up to a line's end: values that are more than a word could add some.
std::string slurm_directive(const Request& request, const std::string& key, std::string_view otherwise) {
  const std::string value = request.set(key, otherwise);
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_.:,+/-").find(c) != std::string_view::npos;
  };
  if (!std::all_of(value.begin(), value.end(), plain))
    throw core::Error("--set " + key + "='" + value.substr(0, 60) + "': want letters, digits and _.:,+/-");
  return value;
}

std::vector<OutputFile> slurm_launch_files(const Request& request) {
  const std::string folder(kSlurmFolder);
  switch (request.plan.backend) {
    case models::Backend::vllm:
      return vllm_files(request, folder);
    case models::Backend::sglang:
      return sglang_files(request, folder);
    case models::Backend::trtllm:
      return trtllm_files(request, folder);
    case models::Backend::drydock:
      break;
  }
  std::vector<OutputFile> out;  // the runtime's scripts, not its units
  for (OutputFile& file : kDrydock.files(request)) {
    const std::string name = file.path.substr(file.path.find('/') + 1);
    if (!name.ends_with(".sh") && name != "runtime.json") continue;
    file.path = folder + "/" + name;
    out.push_back(std::move(file));
  }
  return out;
}

std::string slurm_directives(const Request& request, int nodes, int gpus_per_node) {
  std::string out = "#SBATCH --job-name=" + safe_name("drydock-" + request.plan.model, 40) + "\n";
  out +=
      "#SBATCH --nodes=" + std::to_string(nodes) + "\n#SBATCH --gpus-per-node=" + std::to_string(gpus_per_node) + "\n";
  out += "#SBATCH --exclusive\n#SBATCH --output=%x-%j.log\n#SBATCH --time=" +
         slurm_directive(request, "time", "04:00:00") + "\n";
  for (const char* key : {"account", "partition"})
    if (const std::string value = slurm_directive(request, key, ""); !value.empty())
      out += std::string("#SBATCH --") + key + "=" + value + "\n";
  return out;
}

// Lines that start the steps of one pool.
std::string slurm_steps(const Request& request, const models::Pool& pool) {
  const Layout l = layout(request, pool);
  const std::string role(models::name(pool.role)), nodes = std::to_string(l.nodes);
  const bool mpi = request.plan.backend == models::Backend::trtllm && l.nodes > 1;
  std::string out = "# " + role + ": " + comment_text(pool_summary(request, pool)) + "\nhosts=()\n";
  out += "for ((replica = 0; replica < " + std::to_string(pool.replicas) + "; replica++)); do\n";
  out += "  first=$((" + std::to_string(l.first_node) + " + replica " +
         (l.nodes > 1 ? "* " + nodes : "/ " + std::to_string(l.per_node)) + "))\n";
  out += "  list=$(IFS=,; echo \"${nodes[*]:first:" + nodes + "}\")\n  hosts+=(\"${nodes[first]}\")\n";
  out += "  REPLICA=$replica HEAD_ADDR=${nodes[first]} KV_HOST=${nodes[first]} ROUTER=${nodes[0]}:" +
         std::to_string(kJoinPort) + " srun " + (mpi ? "--mpi=pmix " : "") + "--nodes=" + nodes +
         (mpi ? " --ntasks=" + std::to_string(l.gpus) +
                    " --ntasks-per-node=" + std::to_string((l.gpus + l.nodes - 1) / l.nodes)
              : " --ntasks-per-node=1") +
         " --overlap --nodelist=\"$list\" \\\n    --export=ALL --output=\"" + role +
         "-$replica-%j.log\" \"${container[@]}\" ./" + role + ".sh &\ndone\n";
  std::string variable = role;
  for (char& c : variable) c = static_cast<char>(c - 'a' + 'A');
  return out + "export " + variable + "_HOSTS=\"${hosts[*]}\"\n\n";
}

OutputFile slurm_job(const Request& request) {
  const models::Plan& plan = request.plan;
  int nodes = 0, gpus_per_node = 1;
  std::string steps;
  for (const models::Pool& pool : plan.pools) {
    const Layout l = layout(request, pool);
    steps += slurm_steps(request, pool);
    nodes = std::max(nodes, l.first_node + l.total_nodes);
    gpus_per_node = std::max(gpus_per_node, l.gpus_per_node);
  }
  const bool router = plan.backend == models::Backend::drydock || has_router(plan);
  std::string text = "#!/usr/bin/env bash\n" + slurm_directives(request, nodes, gpus_per_node) + header(request, "# ") +
                     "# usage: sbatch job.sbatch, from this folder; clients talk to port " +
                     std::to_string(kRouterPort) + " of the job's first node\nset -euo pipefail\n\n" +
                     "mapfile -t nodes < <(scontrol show hostnames \"$SLURM_JOB_NODELIST\")\ncontainer=()\n";
  if (const std::string image = request.set("image", ""); !image.empty())
    text += "container=(" + shell_word("--container-image=" + image) +
            " \"--container-mounts=$PWD:$PWD\" \"--container-workdir=$PWD\")\n";
  if (plan.backend == models::Backend::drydock)
    text += "export DRYDOCK_SECRET=\"${DRYDOCK_SECRET:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')}\"\n";
  text += "\n" + steps;
  if (router)
    text +=
        "srun --nodes=1 --ntasks=1 --overlap --nodelist=\"${nodes[0]}\" --output=\"router-%j.log\" \"${container[@]}\" "
        "./router.sh &\n";
  return {std::string(kSlurmFolder) + "/job.sbatch", text + "wait -n  # the job ends with the first step that does\n",
          "the job: sbatch job.sbatch", true};
}

// The nodes of a job are of one kind, and the bundled runtime's workers do not span them.
void check_one_kind(const Request& request) {
  const models::Plan& plan = request.plan;
  if (plan.pools.front().system != plan.pools.back().system)
    throw core::Error("target slurm: prefill runs on " + plan.pools.front().system + " and decode on " +
                      plan.pools.back().system + ", and a job's nodes are of one kind; take target " +
                      std::string(models::name(plan.backend)) + " and a job for each of its scripts");
  for (const models::Pool& pool : plan.pools)
    if (const int nodes = layout(request, pool).nodes; plan.backend == models::Backend::drydock && nodes > 1)
      throw core::Error("target slurm: pool '" + std::string(models::name(pool.role)) + "': an instance takes " +
                        std::to_string(nodes) + " nodes, and a worker of the bundled runtime runs on one");
}

std::vector<OutputFile> slurm_files(const Request& request) {
  check_one_kind(request);
  std::vector<OutputFile> out = {slurm_job(request)};
  for (OutputFile& file : slurm_launch_files(request)) out.push_back(std::move(file));
  return out;
}

constexpr std::array<Setting, 10> kSlurmSettings = {{
    {"account", "Slurm account", "none"},
    {"partition", "Slurm partition", "the cluster's"},
    {"time", "time limit of the job", "04:00:00"},
    {"image", "container image, run by pyxis (--container-image)", "none"},
    {"model-path", "checkpoint to load: a name of the hub or a folder", "the plan's model"},
    {"served-name", "model name that clients use", "the checkpoint's"},
    {"engine-version", "release of the engine", "the newest that was checked"},
    {"draft-model", "checkpoint that drafts", "none"},
    {"router-policy", "policy of the router", "the nearest to the plan's"},
    {"engine", "of the bundled runtime: emulated, cpu or cuda", "emulated"},
}};

}  // namespace

const Target kSlurm = {"slurm", "sbatch job: a step for each instance of the plan's engine, and the router",
                       kSlurmSettings, slurm_files};

}  // namespace drydock::generators
