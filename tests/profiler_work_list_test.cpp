#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "core/json.h"
#include "models/catalogue.h"
#include "profiler/cpu_launch.h"
#include "profiler/cuda/plan.h"
#include "profiler/work_list.h"

using namespace drydock;
using namespace drydock::profiler;

namespace {

models::System h200() { return models::read_system(DRYDOCK_SOURCE_DIR "/models/data/systems/h200_sxm.json"); }

const char* kDense =
    R"({"model_type":"llama","hidden_size":64,"vocab_size":1000,"max_position_embeddings":4096,"num_hidden_layers":2,)"
    R"("num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":128})";

std::vector<Family> families_of(const models::Architecture& model, const Sizes& sizes, const Ranges& ranges,
                                const models::System& system) {
  std::vector<std::string> reasons;
  const auto all = deployments(model, models::choose_precision(model, "bf16"), sizes, system, reasons);
  return work_list(all, ranges, system);
}

const Family& find(const std::vector<Family>& families, core::OpKind kind) {
  const auto it = std::find_if(families.begin(), families.end(), [&](const Family& f) { return f.key.kind == kind; });
  REQUIRE(it != families.end());
  return *it;
}

}  // namespace

TEST_CASE("extents go up by a third and a half in turn") {
  CHECK(extents(1, 8) == std::vector<int64_t>{1, 2, 3, 4, 6, 8});
  CHECK(extents(1, 1) == std::vector<int64_t>{1});
  CHECK(extents(16, 20) == std::vector<int64_t>{16, 20});
  CHECK(extents(16, 64) == std::vector<int64_t>{16, 24, 32, 48, 64});
}

TEST_CASE("a dense model on one GPU asks for four families") {
  const models::Architecture model = models::parse_config(kDense, "", "test");
  const auto families = families_of(model, {}, {256, 512, 8}, h200());
  REQUIRE(families.size() == 4);
  double weight = 0;
  for (const Family& f : families) {
    weight += f.weight();
    CHECK(std::is_sorted(f.candidates.begin(), f.candidates.end(),
                         [](const Candidate& a, const Candidate& b) { return a.op < b.op; }));
    for (const Candidate& c : f.candidates) {
      CHECK(family_of(c.op) == f.key);
      CHECK(c.weight > 0);
    }
  }
  CHECK(weight == doctest::Approx(1));
  // hidden 64, 4 heads of 16, 2 KV heads, inter 128: qkv (128, 64), out (64, 64), up (256, 64), down (64, 128), head
  // (1000, 64).
  std::set<std::pair<int64_t, int64_t>> shapes;
  int64_t most = 0;
  for (const Candidate& c : find(families, core::OpKind::gemm).candidates) {
    shapes.insert({c.op.shape[1], c.op.shape[2]});
    most = std::max(most, c.op.shape[0]);
  }
  CHECK(shapes == std::set<std::pair<int64_t, int64_t>>{{64, 64}, {64, 128}, {128, 64}, {256, 64}, {1000, 64}});
  CHECK(most == 256);
  for (const Candidate& c : find(families, core::OpKind::decode_attention).candidates) {
    CHECK(c.op.shape[0] <= 8);
    CHECK(c.op.shape[1] <= 512);
    CHECK(c.op.shape[2] == 4);
  }
  for (const Candidate& c : find(families, core::OpKind::prefill_attention).candidates)
    CHECK(c.op.shape[1] + c.op.shape[2] <= 512);
}

TEST_CASE("tensor parallelism adds collectives and shares families") {
  const models::Architecture model = models::parse_config(kDense, "", "test");
  Sizes sizes;
  sizes.tp = {1, 2};
  const auto families = families_of(model, sizes, {256, 512, 8}, h200());
  REQUIRE(families.size() == 6);  // all_reduce, and all_gather of the logits
  for (const Candidate& c : find(families, core::OpKind::all_reduce).candidates) CHECK(c.op.shape[1] == 2);
  std::set<int64_t> heads;
  for (const Candidate& c : find(families, core::OpKind::decode_attention).candidates) heads.insert(c.op.shape[2]);
  CHECK(heads == std::set<int64_t>{2, 4});
}

TEST_CASE("what can't be is left out, with the reason") {
  const models::Architecture model = models::parse_config(kDense, "", "test");
  std::vector<std::string> reasons;
  Sizes sizes;
  sizes.tp = {3};
  CHECK(deployments(model, model.precision, sizes, h200(), reasons).empty());
  REQUIRE(reasons.size() == 1);
  CHECK(reasons[0].find("4 heads do not divide over tp 3") != std::string::npos);
  models::System small = h200();
  small.memory_bytes = 1e5;
  reasons.clear();
  CHECK(deployments(model, model.precision, {}, small, reasons).empty());
  REQUIRE(reasons.size() == 1);
  CHECK(reasons[0].find("do not fit") != std::string::npos);
}

TEST_CASE("a mixture of experts has an expert family for each spread") {
  const models::Architecture model = models::parse_config(
      core::read_json(DRYDOCK_SOURCE_DIR "/models/data/models/qwen3-30b-a3b.json")["config"].dump(), "",
      "qwen3-30b-a3b");
  Sizes sizes;
  sizes.tp = {1, 2};
  std::vector<std::string> reasons;
  const auto all = deployments(model, models::choose_precision(model, "bf16"), sizes, h200(), reasons);
  CHECK(all.size() == 3);  // tp 1; tp 2 with ep 1 and with ep 2
  const auto families = work_list(all, {2048, 4096, 32}, h200());
  std::set<int64_t> eps, inters;
  for (const Candidate& c : find(families, core::OpKind::moe).candidates) {
    eps.insert(c.op.shape[5]);
    inters.insert(c.op.shape[2]);
  }
  CHECK(eps == std::set<int64_t>{1, 2});
  CHECK(inters == std::set<int64_t>{384, 768});  // MoE-TP halves the experts' width
}

TEST_CASE("names and axes") {
  const core::Op decode =
      core::parse_op_key("decode_attention/bf16+fp8/batch=4,context=1024,heads=32,kv_heads=8,head_dim=128,window=0");
  CHECK(name(family_of(decode)) == "decode_attention bf16+fp8 128,0,0");
  CHECK(axes(decode) == std::vector<double>{10, 5, 2, 2});
  const core::Op small = core::parse_op_key("elementwise/bf16/tokens=8,read_bytes=12,written_bytes=4");
  CHECK(axes(small) == std::vector<double>{3, 4});
  CHECK(name(family_of(small)) == "elementwise bf16");
}

TEST_CASE("what plans of the catalogue's models ask for has kernels, on the CPU and on a GPU") {
  models::System system = h200();
  system.memory_bytes = 1e13;  // whatever the model
  constexpr cuda::Gpu kH200{90, 132, 50 << 20, 8};
  for (const std::string& name : models::model_names()) {
    CAPTURE(name);
    const models::Architecture model = models::find_model(name);
    Sizes sizes;
    sizes.tp = {8};
    for (const Family& family : families_of(model, sizes, {256, 4096, 4}, system)) {
      if (core::is_communication(family.key.kind)) continue;
      for (const Candidate& candidate : family.candidates) {
        CAPTURE(core::key(candidate.op));
        const auto on_cpu = why_no_launch(candidate.op), on_gpu = cuda::why_no_kernel(candidate.op, kH200);
        CHECK_MESSAGE(!on_cpu, on_cpu.value_or(""));
        // Experts without a gate count as gated ones of two thirds of their width, which is no width of a matrix.
        const bool odd = family.key.kind == core::OpKind::moe && candidate.op.shape[2] % 8 != 0;
        CHECK_MESSAGE((!on_gpu || odd), on_gpu.value_or(""));
      }
    }
  }
}
