#include <doctest/doctest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <map>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "tests/generated_files.h"
#include "tests/random_plans.h"

using namespace drydock;
using generators::OutputFile;
using models::Backend;
using tests::find_file;
using tests::PlanCase;
using tests::put;
using tests::runs;

namespace {

const std::array<std::string, 9> kHostile = {
    "it's \"quoted\"",       "two\nlines\n--trust-remote-code", "$(touch pwned)`touch pwned`",
    "../../etc/passwd",      "a: b # {c} [d] & *e !f %g @h |",  "x -- --port 1",
    std::string(10000, 'x'), "caf\xc3\xa9 \xff \xe2\x80\xa8 x", "${HOME} %i %% $$ \\ \\n"};

// Keys and kinds of a document, without its scalars.
std::string shape(const YAML::Node& node) {
  std::string out;
  if (node.IsMap())
    for (const auto& item : node) out += item.first.as<std::string>() + ":{" + shape(item.second) + "}";
  else if (node.IsSequence())
    for (const auto& item : node) out += "[" + shape(item) + "]";
  else
    out = node.IsNull() ? "0" : "s";
  return out;
}

PlanCase hostile_case(Backend backend, const std::string& name) {
  PlanCase c = tests::random_case(3, backend);
  for (uint64_t seed = 3; c.plan.mode != models::Mode::disagg || c.plan.pools[0].parallelism.gpus() > 4 ||
                          c.plan.pools[1].parallelism.gpus() > 4 || c.plan.pools[0].parallelism.attention_dp > 1 ||
                          c.plan.pools[1].parallelism.attention_dp > 1 || c.plan.pools[0].parallelism.ep > 1 ||
                          c.plan.pools[1].parallelism.ep > 1;)
    c = tests::random_case(++seed, backend);
  c.plan.speculative = "draft:k=2,p=0.5";
  c.plan.model = name;
  c.plan.backend_version = name;
  c.settings = {{"model-path", name}, {"served-name", name}, {"draft-model", name}};
  if (backend == Backend::trtllm) c.settings.erase("served-name");
  return c;
}

}  // namespace

TEST_CASE("hostile names change no file's structure") {
  const std::map<std::string, Backend> targets = {
      {"vllm", Backend::vllm}, {"sglang", Backend::sglang}, {"trtllm", Backend::trtllm}};
  for (const auto& [target, backend] : targets) {
    const auto plain = generators::generate(hostile_case(backend, "plain/name").request(), {target});
    for (const std::string& name : kHostile) {
      CAPTURE(name.substr(0, 40));
      PlanCase c = hostile_case(backend, name);
      auto request = c.request();
      request.command = "drydock generate --plan " + name;
      const auto files = generators::generate(request, {target});
      REQUIRE(files.size() == plain.size());
      for (size_t i = 0; i < files.size(); ++i) {
        CHECK(files[i].path == plain[i].path);
        if (files[i].path.ends_with(".yaml"))
          CHECK(shape(YAML::Load(files[i].text)) == shape(YAML::Load(plain[i].text)));
        if (files[i].path == "manifest.json") core::parse_json(files[i].text, "manifest.json");
        if (files[i].path == "README.md")
          CHECK(std::count(files[i].text.begin(), files[i].text.end(), '\n') ==
                std::count(plain[i].text.begin(), plain[i].text.end(), '\n'));
      }
    }
  }
  PlanCase c = hostile_case(Backend::drydock, "plain");
  for (const std::string& name : kHostile) {
    c.plan.model = name;
    c.settings = {{"image", name}};
    const auto files = generators::generate(c.request(), {"drydock"});
    const OutputFile* compose = find_file(files, "drydock/compose.yaml");
    REQUIRE(compose);
    std::string image = YAML::Load(compose->text)["services"]["router"]["image"].as<std::string>();
    for (size_t at = 0; (at = image.find("$$", at)) != std::string::npos; ++at) image.erase(at, 1);  // as compose does
    if (name.find('\xff') == std::string::npos) CHECK(image == name);
    c.settings = {{"binary", "/bin/" + name}};
    if (name != kHostile[3] && name != kHostile[6])
      CHECK_THROWS_AS(generators::generate(c.request(), {"drydock"}), core::Error);
  }
}

TEST_CASE("scripts hand a hostile name to the engine as one word, and run nothing of it") {
  for (const auto& [target, backend, program] : {std::tuple{"vllm", Backend::vllm, "vllm"},
                                                 {"sglang", Backend::sglang, "python3"},
                                                 {"trtllm", Backend::trtllm, "trtllm-serve"}})
    for (const std::string& name : kHostile) {
      const tests::Scratch folder;
      // Stands for the engine: its words, an end after each.
      put(folder, "hostname", "#!/bin/sh\necho 127.0.0.1\n");  // the real one asks the network
      for (const char* stub : {"vllm", "python3", "trtllm-serve"})
        put(folder, stub, "#!/bin/sh\nfor word in \"$@\"; do printf '%s\\0' \"$word\"; done > \"$OUT\"\n");
      std::array<size_t, 2> words{};
      for (size_t round = 0; round < 2; ++round) {
        PlanCase c = hostile_case(backend, round == 0 ? "plain" : name);
        const auto files = generators::generate(c.request(), {target});
        for (const OutputFile& file : files) put(folder, std::to_string(round) + "/" + file.path, file.text);
        const std::string script = std::to_string(round) + "/" + target + "/prefill.sh",
                          other = std::to_string(round) + "/" + target + "/decode.sh";
        CHECK(runs(folder, "chmod +x hostname " + std::string(program) + " && OUT=$PWD/words PATH=$PWD:$PATH bash ./" +
                               script + " && bash -n " + other));
        const std::string got = core::read_file(folder / "words");
        words[round] = static_cast<size_t>(std::count(got.begin(), got.end(), '\0'));
        if (round == 1)
          CHECK((std::string(1, '\0') + got).find(std::string(1, '\0') + name + std::string(1, '\0')) !=
                std::string::npos);
      }
      CHECK(words[0] == words[1]);
      CHECK(words[0] > 5);
      CHECK(!runs(folder, "find . -name pwned | grep -q ."));
    }
}
