#include <doctest/doctest.h>

#include "configurator/point_row.h"
#include "configurator/points.h"
#include "core/error.h"

using namespace drydock;
using namespace drydock::configurator;

namespace {

constexpr const char* kHeader =
    "mode,model,system,backend,precision,gemm_quant_mode,isl,osl,concurrency,batch_size,tp_size,pp_size,attention_dp_"
    "size,moe_tp_size,moe_ep_size,"
    "prefill_batch_size,prefill_num_workers,prefill_tp_size,decode_batch_size,decode_num_workers,decode_tp_size,ttft_"
    "ms,tpot_ms,spec_doubt\n";

Resources& point_resources() {
  static Resources shared;
  return shared;
}

models::Plan plan_from(const std::string& row) {
  return plan_of(core::Csv::parse(kHeader + row + "\n", "p.csv"), 0, point_resources());
}

}  // namespace

TEST_CASE("a row is the plan it states") {
  const models::Plan plan =
      plan_from("agg,meta-llama/Llama-3.1-70B,h200_sxm,vllm,fp8,fp8,1024,8192,32,32,4,1,1,,,,,,,,,100,10,0");
  CHECK(plan.backend == models::Backend::vllm);
  CHECK(plan.pools[0].parallelism == models::Parallelism{4, 1, 1, 1, 1});
  CHECK(plan.pools[0].replicas == 1);
  CHECK(*plan.workload.concurrency == 32);
  CHECK(plan.workload.shortest == 0.8);
  CHECK(plan.workload.stream_interval == 1);
  const models::Plan disagg = plan_from("disagg,Qwen/Qwen3-32B,h100_sxm,sglang,,,4000,1000,64,,,,,,,2,3,1,32,2,4,,,0");
  REQUIRE(disagg.pools.size() == 2);
  CHECK(disagg.pools[0].replicas == 3);
  CHECK(disagg.pools[0].max_batch == 2);
  CHECK(disagg.pools[1].parallelism.tp == 4);
  CHECK(disagg.pools[1].max_batch == 32);
}

TEST_CASE("an old vLLM with many in flight was asked over aiohttp's 100 connections") {
  const auto connections = [](const std::string& users, const std::string& version, const std::string& isl) {
    const std::string header = "mode,model,system,backend,backend_version,isl,osl,concurrency,tp_size\n";
    const std::string row = "agg,openai/gpt-oss-120b,h100_sxm,vllm," + version + "," + isl + ",1024," + users + ",2\n";
    return plan_of(core::Csv::parse(header + row, "p.csv"), 0, point_resources()).workload.connections;
  };
  CHECK(connections("512", "0.11.2", "8192") == 100);
  CHECK(connections("512", "", "1024") == 100);
  CHECK(connections("100", "0.11.2", "1024") == 0);
  CHECK(connections("512", "0.19.0", "1024") == 0);
  CHECK(connections("512", "0.11.2", "2000") == 0);  // not this client
}

TEST_CASE("sizes that no engine runs are read as what they must mean") {
  const auto pool = [](const std::string& row) { return plan_from(row).pools[0]; };
  // The same 8 GPUs counted as TP and as EP.
  CHECK(pool("agg,gpt-oss-120b,h200_sxm,trtllm,fp4,,1024,1024,8,8,64,1,1,8,8,,,,,,,,,0").parallelism ==
        models::Parallelism{8, 1, 1, 1, 8});
  CHECK(pool("agg,deepseek-ai/DeepSeek-R1,b200_sxm,trtllm,fp4,,1024,1024,64,1,1,1,64,8,8,,,,,,,,,0").parallelism ==
        models::Parallelism{1, 1, 8, 1, 8});
  // 128 heads on 20 GPUs: five instances of 4.
  const models::Pool five =
      pool("agg,deepseek-ai/DeepSeek-R1,gb200,trtllm,fp4,,1024,1024,100,100,20,1,1,20,1,,,,,,,,,0");
  CHECK(five.parallelism.tp == 4);
  CHECK(five.replicas == 5);
  // Attention DP of a dense model is replicas.
  const models::Pool dense = pool("agg,Qwen/Qwen3-32B,h100_sxm,vllm,fp8,,1024,1024,8,8,2,1,4,,,,,,,,,,,0");
  CHECK(dense.parallelism == models::Parallelism{2, 1, 1, 1, 1});
  CHECK(dense.replicas == 4);
  // 416 in flight over batches of 13: 32 instances.
  CHECK(pool("agg,Qwen/Qwen3-32B,b200_sxm,trtllm,fp4,,8000,500,416,13,2,1,1,1,1,,,,,,,,,0").replicas == 32);
}

TEST_CASE("bad rows carry their reason and the others go on") {
  const core::Csv csv =
      core::Csv::parse(std::string(kHeader) +
                           "agg,Qwen/Qwen3-8B,h100_sxm,vllm,bf16,,1000,100,4,4,1,1,,,,,,,,,,50,8,0\n"
                           "agg,Qwen/Qwen3-9B,h100_sxm,vllm,bf16,,1000,100,4,4,1,1,,,,,,,,,,50,8,0\n"
                           "agg,Qwen/Qwen3-8B,h100_sxm,vllm,bf16,,x,100,4,4,1,1,,,,,,,,,,50,8,0\n"
                           "both,Qwen/Qwen3-8B,h100_sxm,vllm,bf16,,1000,100,4,4,1,1,,,,,,,,,,50,8,0\n",
                       "p.csv");
  const auto predictions = predict_points(csv, point_resources());
  REQUIRE(predictions[0].prediction);
  CHECK(predictions[0].error == "");
  CHECK(predictions[0].provenance.find('%') != std::string::npos);
  CHECK(predictions[1].error == "model 'Qwen/Qwen3-9B' is not known, did you mean 'Qwen/Qwen3-8B'?");
  CHECK(predictions[2].error == "p.csv: line 4: column 'isl': want a number from 1 to 100000000, found 'x'");
  CHECK(predictions[3].error == "p.csv: line 5: column 'mode' is neither agg nor disagg");
  const core::Csv out = core::Csv::parse(predictions_csv(csv, predictions), "out.csv");
  CHECK(out.rows() == 4);
  CHECK(out.cell(1, out.column("model")) == "Qwen/Qwen3-9B");
  CHECK(out.cell(1, out.column("predicted_ttft_ms")) == "");
  CHECK(*out.number(0, out.column("predicted_tpot_ms"), 0, 1e6) ==
        doctest::Approx(predictions[0].prediction->tpot_ms.value).epsilon(1e-3));
  CHECK(out.cell(3, out.column("error")) == predictions[3].error);
}

TEST_CASE("errors, bands and regret are computed as defined") {
  // Four deployments of one workload; predictions are made up so that the errors can be worked out by hand.
  std::string text = kHeader;
  for (const char* row : {"agg,m,s,vllm,fp8,,1000,101,10,10,1,1,1,,,,,,,,,100,10,0",
                          "agg,m,s,vllm,fp8,,1000,101,20,20,1,1,1,,,,,,,,,100,20,0",
                          "agg,m,s,vllm,fp8,,1000,101,30,30,1,1,1,,,,,,,,,100,30,0",
                          "agg,m,s,vllm,fp8,,1000,101,40,40,1,1,1,,,,,,,,,100,40,1",
                          "agg,m,s,vllm,fp8,,1000,101,10,10,2,1,1,,,,,,,,,100,8,0"})
    text += std::string(row) + "\n";
  const core::Csv csv = core::Csv::parse(text, "p.csv");
  std::vector<PointPrediction> p(5);
  const auto say = [&](size_t i, double ttft, double tpot) {
    p[i].prediction = models::Prediction{};
    p[i].prediction->ttft_ms = {ttft, ttft / 1.2, ttft * 1.2};
    p[i].prediction->tpot_ms = {tpot, tpot / 1.2, tpot * 1.2};
  };
  say(0, 110, 10);  // +10 %, exact
  say(1, 150, 10);  // +50 %, -50 %
  say(3, 100, 40);
  say(4, 90, 8.8);  // -10 %, +10 %
  const Validation v = validate(csv, p);
  CHECK(v.all.rows == 5);
  CHECK(v.all.predicted == 4);
  CHECK(v.clean.rows == 4);
  CHECK(v.clean.ttft.mape == doctest::Approx((10 + 50 + 10) / 3.0));
  CHECK(v.clean.ttft.median == doctest::Approx(10));
  CHECK(v.clean.ttft.bias == doctest::Approx(10));
  CHECK(v.clean.tpot.bias == doctest::Approx(0));
  CHECK(v.clean.tpot.within20 == doctest::Approx(200 / 3.0));
  CHECK(v.clean.tpot.in_band == doctest::Approx(200 / 3.0));
  // Clean points: throughput per GPU c * 101 / (ttft + 100 tpot) s: A 918, B 962, C 977, E (2 GPUs) 561.
  // Target 10: said A 914, B 1758 (both within), E: B is chosen, whose true TPOT of 20 misses; loss 1 - 962 / 918 < 0
  // -> 0. Target 20: best is B 962, B chosen: 0. Targets 30 and 50: best is C 977, B chosen: 1 - 962 / 977 = 1.5 %
  // each.
  CHECK(v.regret.choices == 4);
  CHECK(v.regret.misses == 1);
  CHECK(v.regret.mean_loss == doctest::Approx((0 + 0 + 2 * 100 * (1 - (20.0 / 2100) / (30.0 / 3100))) / 4));
  CHECK(v.groups.at("model=m").rows == 4);
}

TEST_CASE("a plan that was measured is written as the row that reads back as it") {
  models::Plan plan;
  plan.model = "deepseek-ai/DeepSeek-R1", plan.precision = "fp8_block", plan.kv_precision = "fp8";
  plan.backend = models::Backend::sglang;
  plan.workload.isl = 1000, plan.workload.osl = 200, plan.workload.concurrency = 96, plan.workload.prefix_hit = 0.25;
  models::Pool pool;
  pool.system = "h200_sxm", pool.parallelism = {1, 1, 8, 1, 8}, pool.replicas = 2;
  pool.max_batch = 128, pool.max_tokens = 4096;
  plan.pools = {pool};
  PointMeasurement measured;
  measured.ttft_ms = 123.5, measured.tpot_ms = 9.25, measured.load = "96, in flight";
  const auto read = [&] {
    return plan_of(core::Csv::parse(point_columns() + point_row(plan, measured), "p.csv"), 0, point_resources());
  };
  models::Plan back = read();
  CHECK((back.model == plan.model && back.precision == plan.precision && back.kv_precision == "fp8"));
  CHECK(back.pools[0].parallelism == pool.parallelism);
  CHECK((back.pools[0].replicas == 2 && back.pools[0].max_batch == 128 && back.pools[0].max_tokens == 4096));
  // Lengths in [0.9, 1.1] of 1000 are those in [1 - 0.1818, 1] of 1100.
  CHECK((back.workload.isl == 1100 && back.workload.osl == 220));
  CHECK(back.workload.shortest == doctest::Approx(0.9 / 1.1).epsilon(1e-4));
  CHECK((*back.workload.concurrency == 96 && back.workload.prefix_hit == 0.25));

  plan.model = "Qwen/Qwen3-32B", plan.precision = "fp8", plan.mode = models::Mode::disagg;
  pool.role = models::Role::prefill, pool.parallelism = {1, 1, 1, 1, 1}, pool.replicas = 3, pool.max_batch = 2;
  models::Pool decode = pool;
  decode.role = models::Role::decode, decode.parallelism.tp = 4, decode.replicas = 1, decode.max_batch = 64;
  plan.pools = {pool, decode};
  back = read();
  REQUIRE(back.pools.size() == 2);
  CHECK((back.pools[0].replicas == 3 && back.pools[0].max_batch == 2));
  CHECK((back.pools[1].parallelism.tp == 4 && back.pools[1].max_batch == 64));
  plan.pools[1].system = "h100_sxm";
  CHECK_THROWS_WITH_AS(read(), doctest::Contains("are on h200_sxm and h100_sxm"), core::Error);
}
