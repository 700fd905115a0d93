#include "cli/junit.h"

#include <algorithm>
#include <pugixml.hpp>
#include <sstream>

#include "core/json.h"

namespace drydock::cli {
namespace {

// XML escapes what it may hold; bytes that are no UTF-8 it may not.
std::string as_utf8(const std::string& text) {
  return core::Json::parse(core::Json(text).dump(-1, ' ', false, core::Json::error_handler_t::replace))
      .get<std::string>();
}

void attribute(pugi::xml_node& node, const char* name, const std::string& value) {
  node.append_attribute(name).set_value(as_utf8(value).c_str());
}

void add(pugi::xml_node& suite, const JunitCase& one) {
  pugi::xml_node node = suite.append_child("testcase");
  attribute(node, "classname", one.group);
  attribute(node, "name", one.name);
  if (!one.failure.empty()) {
    pugi::xml_node failure = node.append_child("failure");
    attribute(failure, "message", one.failure);
    failure.text().set(as_utf8(one.output).c_str());
  }
  if (!one.output.empty()) node.append_child("system-out").text().set(as_utf8(one.output).c_str());
}

}  // namespace

std::string junit_xml(const std::string& suite, const std::vector<JunitCase>& cases) {
  pugi::xml_document document;
  pugi::xml_node declaration = document.append_child(pugi::node_declaration);
  declaration.append_attribute("version").set_value("1.0");
  declaration.append_attribute("encoding").set_value("UTF-8");
  pugi::xml_node node = document.append_child("testsuites").append_child("testsuite");
  const auto failures =
      std::count_if(cases.begin(), cases.end(), [](const JunitCase& c) { return !c.failure.empty(); });
  attribute(node, "name", suite);
  attribute(node, "tests", std::to_string(cases.size()));
  attribute(node, "failures", std::to_string(failures));
  attribute(node, "errors", "0");
  for (const JunitCase& one : cases) add(node, one);
  std::ostringstream out;
  document.save(out, "  ", pugi::format_indent, pugi::encoding_utf8);
  return out.str();
}

}  // namespace drydock::cli
