#include "tests/layers.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <fstream>

using drydock::tests::layer_breaches;
namespace fs = std::filesystem;

namespace {

// A small tree that goes away with the test.
class Tree {
 public:
  Tree() : root_(fs::temp_directory_path() / ("drydock_layers_" + std::to_string(::getpid()))) {
    fs::remove_all(root_);
  }
  ~Tree() { fs::remove_all(root_); }
  void write(const std::string& file, const std::string& text) const {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  const fs::path& root() const { return root_; }

 private:
  fs::path root_;
};

}  // namespace

TEST_CASE("the source tree keeps the order of its folders") {
  const auto breaches = layer_breaches(DRYDOCK_SOURCE_DIR);
  for (const std::string& breach : breaches) MESSAGE(breach);
  CHECK(breaches.empty());
}

TEST_CASE("a tree in order has no breach") {
  const Tree tree;
  tree.write("core/op.h", "#include <string>\n#include \"core/dtype.h\"\n");
  tree.write("perfdb/lookup.cpp", "#include \"perfdb/lookup.h\"\n#include \"core/op.h\"\n");
  tree.write("perfdb/CMakeLists.txt",
             "target_link_libraries(drydock_perfdb PUBLIC drydock::core PRIVATE drydock_warnings)\n");
  CHECK(layer_breaches(tree.root()).empty());
}

TEST_CASE("an upward include, a sideways one and a wrong link line are told") {
  const Tree tree;
  tree.write("core/op.h", "#pragma once\n#include \"models/plan.h\"\n");
  tree.write("perfdb/lookup.cpp", "#  include <models/system.h>\n");
  tree.write(
      "generators/CMakeLists.txt",
      "add_library(drydock_generators x.cpp)\ntarget_link_libraries(drydock_generators PUBLIC drydock::perfdb)\n");
  const auto breaches = layer_breaches(tree.root());
  REQUIRE(breaches.size() == 3);
  CHECK(breaches[0] == "core/op.h:2 includes models: core may use nothing");
  CHECK(breaches[1] == "generators/CMakeLists.txt:2 links perfdb: generators may use core, models");
  CHECK(breaches[2] == "perfdb/lookup.cpp:1 includes models: perfdb may use core");
}
