#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file.h"

namespace fs = std::filesystem;
using namespace drydock::core;

TEST_CASE("files are written whole, replaced, bounded, and leave nothing beside them") {
  const fs::path dir = fs::temp_directory_path() / ("drydock_file_" + std::to_string(::getpid()));
  make_output_dir(dir / "a" / "b");
  const fs::path file = dir / "a" / "b" / "x.txt";
  write_file(file, "one");
  write_file(file, "two");
  CHECK(read_file(file) == "two");
  CHECK_THROWS_WITH_AS(read_file(file, 2), (file.string() + ": larger than 2 bytes").c_str(), Error);
  CHECK(std::distance(fs::directory_iterator(file.parent_path()), fs::directory_iterator()) == 1);
  CHECK_THROWS_WITH_AS(read_file(dir), (dir.string() + ": is a folder; want a file").c_str(), Error);
  CHECK_THROWS_AS(read_file(dir / "none"), Error);
  CHECK_THROWS_AS(write_file(dir / "none" / "x", "x"), Error);
  CHECK_THROWS_AS(write_file(dir / "a", "x"), Error);  // a folder
  fs::create_symlink(file, dir / "link");
  write_file(dir / "link", "three");
  CHECK(fs::is_symlink(dir / "link"));
  CHECK(read_file(file) == "three");
  write_file("/dev/null", "x");
  CHECK(fs::is_character_file("/dev/null"));
  CHECK_THROWS_AS(make_output_dir(file), Error);
  CHECK_THROWS_AS(make_output_dir(file / "below"), Error);
  fs::remove_all(dir);
}
