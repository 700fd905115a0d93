#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "runtime/model_config.h"
#include "runtime/safetensors.h"
#include "runtime/weight_source.h"

using namespace drydock;
using namespace drydock::runtime;

namespace {

std::filesystem::path golden(const char* name) {
  return std::filesystem::path(DRYDOCK_SOURCE_DIR) / "tests/golden" / name;
}

std::span<const std::byte> as_file(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string safetensors_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + header + std::string(data_bytes, '\0');
}

void refuse_file(const std::string& header, size_t data_bytes, const char* why) {
  const std::string file = safetensors_of(header, data_bytes);
  CHECK_THROWS_WITH_AS(parse_safetensors(as_file(file), "x.safetensors"), doctest::Contains(why), core::Error);
}

std::string entry(const char* name, const char* dtype, const char* shape, int begin, int end) {
  return std::string("\"") + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

}  // namespace

TEST_CASE("a file of the safetensors library is read as it was written") {
  const std::string file = core::read_file(golden("small.safetensors"));
  const auto tensors = parse_safetensors(as_file(file), "small.safetensors");
  REQUIRE(tensors.size() == 6);
  CHECK(tensors.at("f32").shape == std::vector<int64_t>{2, 3});
  CHECK(tensors.at("scalar").shape.empty());
  CHECK(tensors.at("scalar").elements == 1);
  CHECK(tensors.at("empty").shape == std::vector<int64_t>{0, 4});
  CHECK(tensors.at("empty").data.empty());
  CHECK(tensors.at("bytes").dtype == StoredDtype::u8);
  CHECK(tensors.at("bytes").data[4] == std::byte{4});
  CHECK(name(tensors.at("bf16").dtype) == "BF16");
  float number = 0;
  std::memcpy(&number, tensors.at("f32").data.data() + 4, 4);
  CHECK(number == doctest::Approx(1.0 / 3 - 1));
}

TEST_CASE("weights of fp32, fp16 and bf16 become what is asked for") {
  const auto dir = std::filesystem::temp_directory_path() / "drydock_small_checkpoint";
  std::filesystem::create_directories(dir);
  std::filesystem::copy_file(golden("small.safetensors"), dir / "model.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  const auto source = checkpoint_weights(dir);
  // i / 3 - 1 for i from 0 to 5, in 2 rows of 3; of fp16 a ten-thousandth of that, which is subnormal in places.
  const auto part = [](const char* name) { return WeightPart{name, 2, 3, false, 0, 2, 1, 2}; };
  float out[4];
  source->read(part("f32"), core::Dtype::fp32, out);
  CHECK(out[0] == doctest::Approx(1.0 / 3 - 1));
  CHECK(out[3] == doctest::Approx(5.0 / 3 - 1));
  source->read(part("bf16"), core::Dtype::fp32, out);
  CHECK(std::abs(out[0] - (1.0 / 3 - 1)) <= 0x1p-9);
  source->read(part("f16"), core::Dtype::fp32, out);
  for (int i = 0; i < 4; ++i) {
    const double want = ((i < 2 ? 1 + i : 2 + i) / 3.0 - 1) * 1e-4;
    CHECK(std::abs(out[i] - want) <= 0x1p-25 + std::abs(want) * 0x1p-11);  // half a step of subnormals, 2^-24
  }
  uint16_t halves[4];
  source->read(part("f32"), core::Dtype::bf16, halves);
  CHECK(halves[1] == 0xBEAB);  // -1/3 to nearest: -1.0101011 (binary) x 2^-2
  CHECK_THROWS_WITH_AS(source->read({"none", 2, 3, false, 0, 1, 0, 1}, core::Dtype::fp32, out),
                       doctest::Contains("tensor 'none' is missing"), core::Error);
  CHECK_THROWS_WITH_AS(source->read({"f32", 3, 2, false, 0, 1, 0, 1}, core::Dtype::fp32, out),
                       doctest::Contains("has shape [2, 3]; config.json says [3, 2]"), core::Error);
  CHECK_THROWS_WITH_AS(source->read({"bytes", 1, 5, true, 0, 1, 0, 5}, core::Dtype::fp32, out),
                       doctest::Contains("tensor 'bytes' is U8"), core::Error);
  std::filesystem::remove_all(dir);
}

TEST_CASE("broken safetensors files are refused in one line") {
  CHECK_THROWS_WITH_AS(parse_safetensors({}, "x"), doctest::Contains("shorter than a safetensors header"), core::Error);
  refuse_file("{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("b", "F32", "[2]", 2, 10) + "}", 10,
              "tensors overlap");
  refuse_file("{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("b", "F32", "[1]", 8, 12) + "}", 12,
              "there is a hole");
  refuse_file("{" + entry("a", "F32", "[1]", 0, 4) + "}", 8, "8 bytes of data, but its tensors end at 4");
  refuse_file("{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("a", "F32", "[1]", 0, 4) + "}", 4, "there twice");
  refuse_file("{" + entry("a", "F32", "[2]", 0, 4) + "}", 4, "spans 4 bytes, but dtype and shape need 8");
  refuse_file("{" + entry("a", "F32", "[1]", 0, 400) + "}", 4, "is the file cut off?");
  refuse_file("{" + entry("a", "F32", "[1099511627776,1099511627776]", 0, 4) + "}", 4, "more elements than any memory");
  refuse_file("{" + entry("a", "F32", "[0,4611686018427387904,4]", 0, 0) + "}", 0, "more elements than any memory");
  refuse_file("{" + entry("a", "F32", "[-1]", 0, 4) + "}", 4, "integers of 0 or more");
  refuse_file("{" + entry("a", "Q4", "[1]", 0, 4) + "}", 4, "'Q4' is not known");
  refuse_file("[1]", 0, "has to be a JSON object");
  refuse_file("{\"a\":3}", 0, "want a JSON object");
  std::string beyond = safetensors_of("{}", 0);
  beyond[7] = '\x7F';
  CHECK_THROWS_WITH_AS(parse_safetensors(as_file(beyond), "x"), doctest::Contains("not a safetensors file, or cut off"),
                       core::Error);
}

TEST_CASE("an index can't lead out of its folder, nor to tensors that are not there") {
  const auto dir = std::filesystem::temp_directory_path() / "drydock_bad_index";
  std::filesystem::create_directories(dir);
  const auto refuse_index = [&](const char* index, const char* why) {
    core::write_file(dir / "model.safetensors.index.json", index);
    CHECK_THROWS_WITH_AS(Checkpoint{dir}, doctest::Contains(why), core::Error);
  };
  for (const char* name : {"../x", "/etc/passwd", "..", "a/b", ""})
    refuse_index(("{\"weight_map\":{\"a\":\"" + std::string(name) + "\"}}").c_str(), "not the name of a file");
  refuse_index("{\"weight_map\":{}}", "is empty");
  refuse_index("{\"weight_map\":{\"a\":\"absent.safetensors\"}}", "absent.safetensors");
  core::write_file(dir / "one.safetensors", safetensors_of("{" + entry("a", "F32", "[1]", 0, 4) + "}", 4));
  refuse_index("{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}}", "tensor 'b' is not in one");
  std::filesystem::remove_all(dir);
  CHECK_THROWS_WITH_AS(Checkpoint{dir}, doctest::Contains("model.safetensors"), core::Error);
}

TEST_CASE("configs: what the engines need, and what they don't compute") {
  const ModelConfig c = read_model_config(golden("qwen3_moe"));
  CHECK(c.q_width() == 128);
  CHECK(c.kv_width() == 64);
  CHECK(c.qk_norm);
  CHECK(c.renormalize);
  REQUIRE(c.layers.size() == 3);
  CHECK(c.layers[0].experts == 8);
  CHECK(c.layers[0].inter == 48);
  CHECK(c.layers[1].experts == 0);  // mlp_only_layers
  CHECK(c.layers[1].inter == 160);
  CHECK(read_model_config(golden("llama3")).norm_epsilon == 1e-5F);
  const auto refuse = [](const char* field, const core::Json& value, const char* why) {
    core::Json config = core::read_json(golden("qwen3") / "config.json");
    config[field] = value;
    CHECK_THROWS_WITH_AS(parse_model_config(config.dump(), "c.json"), doctest::Contains(why), core::Error);
  };
  refuse("model_type", "mistral", "field 'model_type': 'mistral' is not computed here");
  refuse("attention_bias", true, "field 'attention_bias'");
  refuse("hidden_act", "gelu", "field 'hidden_act'");
  refuse("use_sliding_window", true, "sliding_window");
  refuse("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}}, "'yarn' is not computed here");
  refuse("head_dim", 31, "field 'head_dim'");
  refuse("quantization_config", {{"quant_method", "fp8"}}, "quantization_config");
}

TEST_CASE("rotary frequencies: Llama 3.1's scaling, in transformers' old and new way to write it") {
  const core::Json config = core::read_json(golden("llama3") / "config.json");
  const ModelConfig scaled = parse_model_config(config.dump(), "c.json");
  core::Json plain = config;
  plain.erase("rope_scaling");
  const ModelConfig unscaled = parse_model_config(plain.dump(), "c.json");
  // theta 500000, 16 numbers a head: waves of 2 pi 500000^(i / 8). Below 64 / 4 = 16 (i = 0) they stay; i = 1 has one
  // of 32.4, between: smooth = (64 / 32.4 - 1) / 3; above 64 (i >= 2) all are stretched by 8.
  CHECK(unscaled.inverse_frequencies[1] == doctest::Approx(std::pow(500000.0, -0.125)));
  CHECK(scaled.inverse_frequencies[0] == 1);
  const double wave = 2 * M_PI * std::pow(500000.0, 0.125), smooth = (64 / wave - 1) / 3;
  CHECK(scaled.inverse_frequencies[1] ==
        doctest::Approx(unscaled.inverse_frequencies[1] * ((1 - smooth) / 8 + smooth)).epsilon(1e-6));
  for (size_t i = 2; i < 8; ++i)
    CHECK(scaled.inverse_frequencies[i] == doctest::Approx(unscaled.inverse_frequencies[i] / 8).epsilon(1e-6));
  core::Json renamed = plain;
  renamed["rope_parameters"] = config["rope_scaling"];
  renamed["rope_parameters"]["rope_theta"] = config["rope_theta"];
  renamed.erase("rope_theta");
  CHECK(parse_model_config(renamed.dump(), "c.json").inverse_frequencies == scaled.inverse_frequencies);
}
