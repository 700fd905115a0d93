#include "cli/page.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "core/file.h"
#include "models/catalogue.h"

namespace drydock::cli {
namespace {

constexpr std::string_view kPlace = "DRYDOCK_PAGE_DATA";  // in cli/data/page.html
constexpr int kPageVersion = 1;

std::filesystem::path template_file() { return models::data_dir() / "page.html"; }

// Five digits are more than any figure is good for, and much less page.
void shorten(core::Json& json) {
  if (json.is_number_float()) {
    const double value = json.get<double>();
    if (value == 0 || !std::isfinite(value)) return;
    const double unit = std::pow(10.0, 4 - std::floor(std::log10(std::abs(value))));
    if (std::isfinite(unit) && unit > 0) json = std::round(value * unit) / unit;
    return;
  }
  if (json.is_structured())
    for (core::Json& part : json) shorten(part);
}

}  // namespace

std::string island_text(const core::Json& data) {
  core::Json shorter = data;
  shorten(shorter);
  const std::string text = shorter.dump(-1, ' ', true, core::Json::error_handler_t::replace);
  std::string out;
  out.reserve(text.size());
  for (const char c : text)  // none of these stands outside of strings
    if (c == '<' || c == '>' || c == '&')
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      out += c;
  return out;
}

std::string page_html(std::string_view schema, const core::Json& data) {
  std::string page = core::read_file(template_file());
  const size_t at = page.find(kPlace);
  if (at == std::string::npos) throw core::Error(template_file().string() + ": has no place for data; install it anew");
  core::Json whole = {{"schema", schema}, {"version", kPageVersion}, {"drydock", DRYDOCK_VERSION}};
  whole.update(data);
  return page.replace(at, kPlace.size(), island_text(whole));
}

void check_page_target(const std::filesystem::path& file, std::string_view flag) {
  const auto bad = [&](const std::string& what) {
    return core::Error(std::string(flag) + " '" + file.string().substr(0, 200) + "': " + what);
  };
  std::error_code status;
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
  if (std::filesystem::is_directory(file, status)) throw bad("is a folder; want a file such as report.html");
  if (!file.has_filename()) throw bad("want a file such as report.html");
  if (!std::filesystem::is_directory(folder, status)) throw bad("its folder is not there; make it first");
  if (!std::filesystem::is_regular_file(template_file(), status))
    throw core::Error(template_file().string() + " is missing; install Drydock anew");
}

}  // namespace drydock::cli
